"""Generates through Triton over gRPC: one stream a request, every wait bounded."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]
import grpc.experimental  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2, service_pb2_grpc

from gateway.timeouts import Pulse, Watchdog
from gateway.triton.backend import READY_TIMEOUT_S, Cancellation, Chunk, GenerateRequest
from gateway.triton.errors import log_refusal
from gateway.triton.grpc_messages import NOTHING, asking, cancelling, read
from gateway.triton.grpc_streams import Stream, StreamThread, TritonStreams
from glmserve import contract
from glmserve.contract import Finish
from glmserve.errors import BackendDown, Cancelled, DeadlineExceeded, GlmServeError, Overloaded, from_wire

_DRAIN_TIMEOUT_S = 1.0
_GRACE_S = 1.0  # so that the engine's own deadline comes first
_LEAVE_S = 2.0
_LEAVERS = 4
_KEY_BITS = 63
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
_STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
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

    An answer is given up by a request of its own, and its call read to the end: a call that is cancelled just when its
    answer ends brings the whole Triton down now and then (the one of nvidia-pytriton 0.7 frees its state twice). Calls
    are cancelled only if the engine does not end them in time.
    """

    def __init__(self, url: str, response_timeout_s: float, thread: StreamThread | None = None) -> None:
        """`url` is grpc://host:port; nothing is connected until the first call. Whoever made `thread` closes it."""
        target = url.removeprefix("grpc://")
        self._channel = grpc.insecure_channel(target, options=(*_CHANNEL_OPTIONS, _READ_BY_WHO_WAITS))
        self._ready = service_pb2_grpc.GRPCInferenceServiceStub(self._channel).ModelReady
        # One request a stream is the same on the wire as a call that takes one, and such a call needs no threads of
        # its own: a first token comes a millisecond sooner, and later ones cost 40 % less.
        self._infer: Any = self._channel.unary_stream(_STREAM, response_deserializer=read)

        def open_channel() -> Any:
            return grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)

        self._own_thread = None
        if thread is None:
            thread = self._own_thread = StreamThread()
        self._streams = TritonStreams(thread, open_channel, _STREAM, read)
        self._response_timeout_s = response_timeout_s
        self._watchdog = Watchdog()
        self._leavers = ThreadPoolExecutor(_LEAVERS, thread_name_prefix="leavers")

    def generate(self, request: GenerateRequest) -> Generator[Chunk]:
        """The answer's messages; silence between two that is longer than the response timeout is a DeadlineExceeded.

        The first message may wait in line for as long as the deadline allows.
        """
        metadata = (("traceparent", request.traceparent),) if request.traceparent else None
        key, timeout_s = random.getrandbits(_KEY_BITS), request.deadline_s + _GRACE_S
        call: Stream | _Call
        if request.stream_buffer is not None:
            call = self._streams.ask(asking(request, key), timeout_s, metadata, request.stream_buffer)
        else:
            call = _Call(self._infer(asking(request, key), timeout=timeout_s, metadata=metadata))
        try:
            with self._watchdog.watch(call.cancel, timeout_s) as pulse:
                request.cancellation.add_callback(lambda: self._give_up(call, key, pulse))
                yield from self._chunks(call, pulse, request.cancellation)
        finally:
            if not call.has_ended:
                self._leave(call, key, is_told=request.cancellation.is_cancelled)
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
        """Any thread's, while another one reads: a stream's reader is let go, a call's hears the engine's last word."""
        if call.has_ended:
            return
        self._streams.tell(cancelling(key))
        pulse.beat(_LEAVE_S)
        if isinstance(call, Stream):
            call.leave()

    def _leave(self, call: Stream | _Call, key: int, is_told: bool) -> None:
        """The reader's own: nobody reads any more, and nobody waits until the engine has ended the call."""
        if not is_told:
            self._streams.tell(cancelling(key))
        if isinstance(call, Stream):
            call.leave()
            return
        try:
            self._leavers.submit(self._read_out, call)
        except RuntimeError:  # we are being closed
            call.cancel()

    def _read_out(self, call: _Call) -> None:
        with self._watchdog.watch(call.cancel, _LEAVE_S):
            _drain(call)

    def _chunks(self, call: Iterator[Any], pulse: Pulse, cancellation: Cancellation) -> Generator[Chunk]:
        try:
            for said in call:
                pulse.beat(self._response_timeout_s)
                if said is NOTHING:
                    continue
                if isinstance(said, GlmServeError):
                    self._drain(call, pulse)
                    raise said
                yield said
                if said.finish != Finish.RUNNING:
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
    """A call that is read by whoever waits for it, and knows whether it has been read to its end."""

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
    """Reads a finished answer's call to its end; how that ends changes nothing any more."""
    try:
        for _ in call:
            pass
    except (grpc.RpcError, GlmServeError):
        pass


def _from_rpc(error: grpc.RpcError) -> GlmServeError:
    status, details = error.code(), error.details() or ""
    if status not in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED):
        log_refusal(status.name, details)
    ours = from_wire(details)
    if ours is not None:
        return ours
    return _BY_STATUS.get(status, GlmServeError)()
