"""Reads the streams of all Tritons on one thread: waking a thread for each token would cost more than the token."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc.aio  # type: ignore[import-untyped]

from gateway.triton.stream_buffer import StreamBuffer
from glmserve.errors import Cancelled, GlmServeError

_JOIN_S = 5.0
_LEAVE_S = 2.0
_SEND_S = 5.0
_GRACE_S = 2.0  # so that gRPC's own deadline comes first
_END = object()


class StreamThread:
    """The thread that reads streams with gRPC's event loop; the first stream starts it, and `close` ends it.

    There is one in a process: gRPC's loops share a waker, and several take each other's wake-ups.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, work: Callable[[], object]) -> None:
        """Runs `work` on the thread, in the order of the calls; does nothing once the thread has ended."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="streams", daemon=True)
                self._thread.start()
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(work)

    def close(self) -> None:
        """Ends the thread after the streams of the channels that were closed before."""
        if self._loop is None or self._thread is None:
            return
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(_all_ended(), self._loop).result(_JOIN_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_JOIN_S)
        if not self._thread.is_alive():
            self._loop.close()


class TritonStreams:
    """The streams of one Triton, on a channel of their own that the first stream opens."""

    def __init__(
        self, thread: StreamThread, open_channel: Callable[[], Any], method: str, read: Callable[[bytes], Any]
    ):
        """`open_channel` makes an aio channel, `read` parses a message; both run on the thread."""
        self._thread = thread
        self._open_channel = open_channel
        self._method = method
        self._read = read
        self._channel: Any = None
        self._infer: Any = None
        self._sending: set[asyncio.Task[None]] = set()  # asyncio keeps no reference of its own

    def ask(self, request: bytes, timeout_s: float, metadata: Any, stream_buffer: StreamBuffer) -> Stream:
        """Begins a stream whose messages go into the buffer."""
        outgoing = _Outgoing(request)
        return Stream(self._thread, lambda: self._call(outgoing, timeout_s, metadata), stream_buffer, timeout_s)

    def send(self, request: bytes) -> None:
        """Sends a request and ignores its answer."""
        self._thread.run(lambda: self._send(_Outgoing(request)))

    def close(self) -> None:
        """Ends all streams of this Triton, after a grace period."""
        self._thread.run(self._close)

    def _call(self, request: _Outgoing, timeout_s: float, metadata: Any) -> Any:
        if self._infer is None:
            self._channel = self._open_channel()
            self._infer = self._channel.unary_stream(self._method, _Outgoing.take, self._read)
        return self._infer(request, timeout=timeout_s, metadata=metadata)

    def _close(self) -> None:
        if self._channel is not None:
            self._closing = asyncio.ensure_future(self._channel.close(_LEAVE_S))  # keeps the reference, as above

    def _send(self, outgoing: _Outgoing) -> None:
        task = asyncio.ensure_future(self._drain(outgoing))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _drain(self, outgoing: _Outgoing) -> None:
        with suppress(grpc.RpcError):
            async for _ in self._call(outgoing, _SEND_S, None):
                pass


class Stream:
    """One call: iterating waits for its messages and raises its error; any thread may leave or cancel it."""

    def __init__(
        self, thread: StreamThread, call: Callable[[], Any], stream_buffer: StreamBuffer, timeout_s: float
    ) -> None:
        self._thread = thread
        self._call = call
        self._buffer = stream_buffer
        self._timeout_s = timeout_s + _GRACE_S
        self.has_ended = False
        self._task: asyncio.Task[None] | None = None
        stream_buffer.open(self)
        thread.run(self._begin)

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Any:
        message = self._buffer.get(self._timeout_s)
        if message is _END:
            raise StopIteration
        if isinstance(message, BaseException):
            raise message
        return message

    def leave(self) -> None:
        """Raises Cancelled in the reader; the call goes on until the engine ends it, or is cancelled soon after."""
        if not self.has_ended:
            self._thread.run(self._leave)

    def cancel(self) -> None:
        if not self.has_ended:
            self._thread.run(self._stop)

    def _begin(self) -> None:
        self._task = asyncio.ensure_future(self._read())

    def _leave(self) -> None:
        self._end(Cancelled())
        if self._task is not None:
            asyncio.get_running_loop().call_later(_LEAVE_S, self._task.cancel)

    def _stop(self) -> None:
        self._end(Cancelled())
        if self._task is not None:
            self._task.cancel()

    async def _read(self) -> None:
        try:
            async for message in self._call():
                if not self.has_ended:
                    self._buffer.put(self, message)
            self._end(_END)
        except grpc.RpcError as error:
            self._end(error)
        except Exception as error:  # the stream's outer edge: the reader must not wait for ever
            self._end(GlmServeError(str(error)))

    def _end(self, message: object) -> None:
        if not self.has_ended:
            self.has_ended = True
            self._buffer.put(self, message)


async def _all_ended() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=_LEAVE_S)


class _Outgoing:
    """Holds a request until it is sent: gRPC's calls keep their request, and images are megabytes."""

    def __init__(self, request: bytes) -> None:
        self._request = request

    def take(self) -> bytes:
        request, self._request = self._request, b""
        return request
