"""Generates through Triton over gRPC: one stream per request, and a timeout on every wait."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]
import grpc.experimental  # type: ignore[import-untyped]
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

from gateway.timeouts import Pulse, Watchdog
from gateway.triton.backend import READY_TIMEOUT_S, Cancellation, Chunk, GenerateRequest
from gateway.triton.errors import error_of, log_refusal
from gateway.triton.grpc_streams import Stream, StreamThread, TritonStreams
from gateway.triton.tensors import cancelling_tensors, chunk_of, keyed_tensors, new_key, outputs_of
from glmserve import contract
from glmserve.contract import Finish, Tensor
from glmserve.errors import BackendDown, Cancelled, DeadlineExceeded, GlmServeError, Overloaded, from_wire

_DRAIN_TIMEOUT_S = 1.0
_GRACE_S = 1.0  # so that the engine's own deadline comes first
_LEAVE_S = 2.0
_LEAVERS = 4
_MIB = 1024**2
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", 512 * _MIB),  # 16 images of 6144 tokens are 231 MB
    ("grpc.max_receive_message_length", 16 * _MIB),
    ("grpc.enable_http_proxy", 0),
    ("grpc.lb_policy_name", "round_robin"),  # reconnects by itself
    ("grpc.initial_reconnect_backoff_ms", 100),  # the default grows to two minutes after a restart of Triton
    ("grpc.min_reconnect_backoff_ms", 8000),  # in fact the timeout of a handshake, which a slow network makes long
    ("grpc.max_reconnect_backoff_ms", 1000),
)
_NOTHING = object()
"""Triton's empty final response."""
_RAW_INPUT = bytes([service_pb2.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | 2])  # a field of bytes
_READ_BY_WAITING_THREAD = (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1)
_STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
_BY_STATUS: dict[grpc.StatusCode, type[GlmServeError]] = {
    grpc.StatusCode.UNAVAILABLE: BackendDown,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.CANCELLED: BackendDown,  # by a Triton that ends: our own cancellation is told apart before
    grpc.StatusCode.NOT_FOUND: BackendDown,
    grpc.StatusCode.UNKNOWN: BackendDown,
    grpc.StatusCode.ABORTED: BackendDown,
}


class TritonBackend:
    """One Triton; made after a worker has forked, because gRPC's threads do not survive a fork.

    The thread that waits for a whole answer reads it itself. One thread reads all streams that have a StreamBuffer.

    To cancel an answer, we send a second request and read the call to its end. gRPC's own cancellation, when it meets
    the end of an answer, now and then crashes the whole Triton (that of nvidia-pytriton 0.7 frees the call's state
    twice), so we use it only if the engine does not end the call in time.
    """

    def __init__(self, url: str, response_timeout_s: float, thread: StreamThread | None = None) -> None:
        """`url` is grpc://host:port; connects with the first call. The caller closes `thread`."""
        target = url.removeprefix("grpc://")
        self._channel = grpc.insecure_channel(target, options=(*_CHANNEL_OPTIONS, _READ_BY_WAITING_THREAD))
        self._ready = service_pb2_grpc.GRPCInferenceServiceStub(self._channel).ModelReady
        # A stream of one request looks the same on the wire as a call with one request, which needs no thread of its
        # own: the first token comes a millisecond sooner, and each later one costs 40 % less.
        self._infer: Any = self._channel.unary_stream(_STREAM, response_deserializer=_read)

        def open_channel() -> Any:
            return grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)

        self._own_thread = None
        if thread is None:
            thread = self._own_thread = StreamThread()
        self._streams = TritonStreams(thread, open_channel, _STREAM, _read)
        self._response_timeout_s = response_timeout_s
        self._watchdog = Watchdog()
        self._leavers = ThreadPoolExecutor(_LEAVERS, thread_name_prefix="leavers")

    def generate(self, request: GenerateRequest) -> Generator[Chunk]:
        """The answer's messages; raises DeadlineExceeded when the next one takes longer than the response timeout.

        The first message may take until the deadline, because the request may wait in the queue.
        """
        metadata = (("traceparent", request.traceparent),) if request.traceparent else None
        key, timeout_s = new_key(), request.deadline_s + _GRACE_S
        call: Stream | _Call
        if request.stream_buffer is not None:
            call = self._streams.ask(_asking(request, key), timeout_s, metadata, request.stream_buffer)
        else:
            call = _Call(self._infer(_asking(request, key), timeout=timeout_s, metadata=metadata))
        try:
            with self._watchdog.watch(call.cancel, timeout_s) as pulse:
                request.cancellation.add_callback(lambda: self._give_up(call, key, pulse))
                yield from self._chunks(call, pulse, request.cancellation)
        finally:
            if not call.has_ended:
                self._leave(call, key, was_told=request.cancellation.is_cancelled)
            if request.stream_buffer is not None:
                request.stream_buffer.close(call)

    def models_ready(self) -> bool:
        try:
            request = service_pb2.ModelReadyRequest(name=contract.DECODER_MODEL)
            return bool(self._ready(request, timeout=READY_TIMEOUT_S).ready)
        except grpc.RpcError:
            return False

    def close(self) -> None:
        self._leavers.shutdown()
        self._channel.close()
        self._streams.close()
        if self._own_thread is not None:
            self._own_thread.close()
        self._watchdog.close()

    def _give_up(self, call: Stream | _Call, key: int, pulse: Pulse) -> None:
        """Runs on any thread while another reads: a stream's reader is released, a call's gets the engine's error."""
        if call.has_ended:
            return
        self._streams.send(_cancelling(key))
        pulse.beat(_LEAVE_S)
        if isinstance(call, Stream):
            call.leave()

    def _leave(self, call: Stream | _Call, key: int, was_told: bool) -> None:
        """Runs on the reader's thread when it stops reading, and does not wait until the engine has ended the call."""
        if not was_told:
            self._streams.send(_cancelling(key))
        if isinstance(call, Stream):
            call.leave()
            return
        try:
            self._leavers.submit(self._read_out, call)
        except RuntimeError:  # the backend is being closed
            call.cancel()

    def _read_out(self, call: _Call) -> None:
        with self._watchdog.watch(call.cancel, _LEAVE_S):
            _drain(call)

    def _chunks(self, call: Iterator[Any], pulse: Pulse, cancellation: Cancellation) -> Generator[Chunk]:
        try:
            for message in call:
                pulse.beat(self._response_timeout_s)
                if message is _NOTHING:
                    continue
                if isinstance(message, GlmServeError):
                    self._drain(call, pulse)
                    raise message
                yield message
                if message.finish != Finish.RUNNING:
                    self._drain(call, pulse)
                    return
        except (grpc.RpcError, Cancelled) as error:
            if cancellation.is_cancelled:
                raise Cancelled from error
            if pulse.is_dead:
                raise DeadlineExceeded from error
            if isinstance(error, Cancelled):
                raise
            raise _from_rpc(error) from error
        raise BackendDown  # the stream ended before the answer did

    def _drain(self, call: Iterator[Any], pulse: Pulse) -> None:
        pulse.beat(_DRAIN_TIMEOUT_S)
        _drain(call)


class _Call:
    """A call that the waiting thread reads itself; knows whether it was read to its end."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self.has_ended = False

    def __iter__(self) -> _Call:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._call)
        except (StopIteration, grpc.RpcError):
            self.has_ended = True
            raise

    def cancel(self) -> None:
        self._call.cancel()


def _drain(call: Iterator[Any]) -> None:
    """Reads a finished answer's call to its end, and ignores how it ends."""
    try:
        for _ in call:
            pass
    except (grpc.RpcError, GlmServeError):
        pass


def _from_rpc(error: grpc.RpcError) -> GlmServeError:
    status, details = error.code(), error.details() or ""
    if status is not grpc.StatusCode.DEADLINE_EXCEEDED:
        log_refusal(status.name, details)
    ours = from_wire(details)
    if ours is not None:
        return ours
    return _BY_STATUS.get(status, GlmServeError)()


def _asking(request: GenerateRequest, key: int) -> bytes:
    """The request for an answer; a `_cancelling` request with the same key ends it."""
    return _written(request.request_id, keyed_tensors(request, key), outputs_of(request))


def _cancelling(key: int) -> bytes:
    return _written("", cancelling_tensors(key), ())


def _read(data: bytes) -> Chunk | GlmServeError | object:
    """A message from Triton: a chunk, an error, or nothing. Returns errors, because gRPC allows no exception here."""
    message = service_pb2.ModelStreamInferResponse.FromString(data)
    if message.error_message:
        return error_of(message.error_message)
    response = message.infer_response
    if not response.outputs:
        return _NOTHING
    try:
        raw = {output.name: data for output, data in zip(response.outputs, response.raw_output_contents, strict=True)}
        return chunk_of(raw)
    except (ValueError, GlmServeError) as error:  # of another contract version
        return error if isinstance(error, GlmServeError) else GlmServeError(str(error))


def _written(request_id: str, tensors: list[tuple[Tensor, NDArray[Any]]], outputs: tuple[Tensor, ...]) -> bytes:
    """A serialised ModelInferRequest. It copies tensors once; protobuf would copy 9 MB of patches three times."""
    message = service_pb2.ModelInferRequest(model_name=contract.DECODER_MODEL, id=request_id)
    message.parameters["triton_enable_empty_final_response"].bool_param = True
    raw: list[Any] = []
    for tensor, values in tensors:
        message.inputs.add(name=tensor.name, datatype=tensor.triton_dtype, shape=values.shape)
        raw += [_RAW_INPUT, _varint(values.nbytes), values]
    for tensor in outputs:
        message.outputs.add(name=tensor.name)
    return b"".join([message.SerializeToString(), *raw])


def _varint(number: int) -> bytes:
    """A protobuf varint: seven bits per byte, and the highest bit set in all but the last."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)
