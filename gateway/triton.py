"""Generates through Triton over gRPC: one stream a request, every wait bounded."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]
import grpc.experimental  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2, service_pb2_grpc

from gateway.backend import READY_TIMEOUT_S, Chunk, GenerateRequest
from gateway.streams import StreamThread, TritonStreams
from gateway.tensors import chunk_of, outputs_of, tensors_of
from gateway.triton_errors import error_of, log_refusal
from gateway.watchdog import Pulse, Watchdog
from glmserve import contract
from glmserve.contract import Finish
from glmserve.errors import BackendDown, Cancelled, DeadlineExceeded, GlmServeError, Overloaded, from_wire

_DRAIN_TIMEOUT_S = 1.0
_GRACE_S = 1.0  # so that gRPC's own deadline comes first
_MIB = 1024**2
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", 512 * _MIB),  # 16 pictures of 6144 tokens are 231 MB
    ("grpc.max_receive_message_length", 16 * _MIB),
    ("grpc.enable_http_proxy", 0),
    ("grpc.lb_policy_name", "round_robin"),  # connects again by itself
    ("grpc.initial_reconnect_backoff_ms", 100),  # the default grows to two minutes after a restart of Triton
    ("grpc.min_reconnect_backoff_ms", 2000),  # in truth how long a handshake may take, which a busy host needs
    ("grpc.max_reconnect_backoff_ms", 1000),
)
_READ_BY_WHO_WAITS = (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1)
_NOTHING = object()
"""Triton's empty final response."""
_STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
_RAW_INPUT = bytes([service_pb2.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | 2])  # a field of bytes
_BY_STATUS: dict[grpc.StatusCode, type[GlmServeError]] = {
    grpc.StatusCode.UNAVAILABLE: BackendDown,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.NOT_FOUND: BackendDown,
    grpc.StatusCode.UNKNOWN: BackendDown,
    grpc.StatusCode.ABORTED: BackendDown,
}


class TritonBackend:
    """The Backend that Triton serves; made after a worker has forked, because gRPC's threads do not survive a fork.

    A whole answer is read by the thread that waits for it; of streams with a mailbox, all are read by one thread.
    """

    def __init__(self, url: str, response_timeout_s: float, thread: StreamThread | None = None) -> None:
        """`url` is grpc://host:port; nothing is connected until the first call. Whoever made `thread` closes it."""
        target = url.removeprefix("grpc://")
        self._channel = grpc.insecure_channel(target, options=(*_CHANNEL_OPTIONS, _READ_BY_WHO_WAITS))
        self._ready = service_pb2_grpc.GRPCInferenceServiceStub(self._channel).ModelReady
        # One request a stream is the same on the wire as a call that takes one, and such a call needs no threads of
        # its own: a first token comes a millisecond sooner, and later ones cost 40 % less.
        self._infer: Any = self._channel.unary_stream(_STREAM, response_deserializer=_read)

        def open_channel() -> Any:
            return grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)

        self._streams = TritonStreams(thread, open_channel, _STREAM, _read) if thread else None
        self._response_timeout_s = response_timeout_s
        self._watchdog = Watchdog()

    def generate(self, request: GenerateRequest) -> Generator[Chunk]:
        """The answer's messages; silence between two that is longer than the response timeout is a DeadlineExceeded.

        The first message may wait in line for as long as the deadline allows.
        """
        metadata = (("traceparent", request.traceparent),) if request.traceparent else None
        call: Any
        if self._streams is not None and request.mailbox is not None:
            call = self._streams.ask(_wire(request), request.deadline_s, metadata, request.mailbox)
        else:
            call = self._infer(_wire(request), timeout=request.deadline_s, metadata=metadata)
        request.cancellation.then(call.cancel)
        try:
            with self._watchdog.watch(call.cancel, request.deadline_s + _GRACE_S) as pulse:
                yield from self._chunks(call, pulse)
        finally:
            call.cancel()  # does nothing to a call that has ended
            if request.mailbox is not None:
                request.mailbox.close(call)

    def models_ready(self) -> bool:
        return all(self._is_model_ready(name) for name in (contract.DECODER_MODEL, contract.VISION_MODEL))

    def close(self) -> None:
        self._channel.close()
        if self._streams is not None:
            self._streams.close()
        self._watchdog.close()

    def _chunks(self, call: Iterator[Any], pulse: Pulse) -> Generator[Chunk]:
        try:
            for said in call:
                pulse.beat(self._response_timeout_s)
                if isinstance(said, GlmServeError):
                    raise said
                if said is _NOTHING:
                    continue
                yield said
                if said.finish != Finish.RUNNING:
                    pulse.beat(_DRAIN_TIMEOUT_S)
                    _drain(call)
                    return
        except (grpc.RpcError, Cancelled) as error:
            if pulse.is_dead:
                raise DeadlineExceeded from error
            if isinstance(error, Cancelled):
                raise
            raise _from_rpc(error) from error
        raise BackendDown  # the stream ended before the answer did

    def _is_model_ready(self, name: str) -> bool:
        try:
            request = service_pb2.ModelReadyRequest(name=name)
            return bool(self._ready(request, timeout=READY_TIMEOUT_S).ready)
        except grpc.RpcError:
            return False


def _drain(call: Iterator[Any]) -> None:
    """Reads a finished answer's stream to its end: cancelling it instead would race with Triton's own clean-up."""
    try:
        for _ in call:
            pass
    except (grpc.RpcError, GlmServeError):
        pass  # the answer is complete; how its stream ended changes nothing


def _wire(request: GenerateRequest) -> bytes:
    """A ModelInferRequest as it travels, its tensors copied once: protobuf itself would copy 9 MB of patches thrice."""
    message = service_pb2.ModelInferRequest(model_name=contract.DECODER_MODEL, id=request.request_id)
    message.parameters["triton_enable_empty_final_response"].bool_param = True
    tensors: list[Any] = []
    for tensor, values in tensors_of(request):
        message.inputs.add(name=tensor.name, datatype=tensor.triton_dtype, shape=values.shape)
        tensors += [_RAW_INPUT, _varint(values.nbytes), values]
    for tensor in outputs_of(request):
        message.outputs.add(name=tensor.name)
    return b"".join([message.SerializeToString(), *tensors])


def _varint(number: int) -> bytes:
    """A length as protobuf writes it: seven bits a byte, the last one without its highest bit."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _read(data: bytes) -> Chunk | GlmServeError | object:
    """A message of Triton's: a part of the answer, why there is none, or nothing. gRPC lets nothing be raised here."""
    message = service_pb2.ModelStreamInferResponse.FromString(data)
    if message.error_message:
        return error_of(message.error_message)
    response = message.infer_response
    if not response.outputs:
        return _NOTHING
    try:
        raw = {output.name: data for output, data in zip(response.outputs, response.raw_output_contents, strict=True)}
        return chunk_of(raw)
    except (ValueError, GlmServeError) as error:  # another contract's
        return error if isinstance(error, GlmServeError) else GlmServeError(str(error))


def _from_rpc(error: grpc.RpcError) -> GlmServeError:
    status, details = error.code(), error.details() or ""
    if status not in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED):
        log_refusal(status.name, details)
    ours = from_wire(details)
    if ours is not None:
        return ours
    return _BY_STATUS.get(status, GlmServeError)()
