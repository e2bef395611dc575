"""Server-sent events: one answer written to its client, from the wait for its first event to its end."""

from __future__ import annotations

import itertools
import json
import socket
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol

import structlog

from gateway.chat.generation import Answer, Event, Piece, StartedAnswer
from gateway.chat.service import Prepared
from gateway.observability.request_record import RequestRecord
from gateway.triton.backend import Cancellation
from gateway.triton.stream_buffer import StreamBuffer
from glmserve.errors import Cancelled, GlmServeError

MIMETYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
HEARTBEAT = ": still working\n\n"
_CLOSE_TIMEOUT_S = 5.0
_WRITE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # json.dumps would make one each time


def data(values: Any) -> str:
    """One event."""
    return f"data: {_WRITE(values)}\n\n"


def named(kind: str, values: Any) -> str:
    """One event that has a name, as those of Anthropic's and OpenAI's newer routes have."""
    return f"event: {kind}\n{data(values)}"


class StreamShape(Protocol):
    """How a route writes a streamed answer; made for one request."""

    def start(self, prepared: Prepared) -> Iterator[str]:
        """The first events, before any of the answer."""
        ...

    def piece(self, piece: Piece) -> Iterator[str]:
        """The events for one piece."""
        ...

    def end(self, prepared: Prepared, answer: Answer) -> Iterator[str]:
        """The last events of an answer that succeeded."""
        ...

    def failure(self, error: GlmServeError) -> Iterator[str]:
        """The last events of an answer that failed."""
        ...


class StreamedResponse:
    """The body of one streamed response: the only reader of its answer's events.

    A thread of its own waits for the first event, and the client is sent comments meanwhile. After that the request's
    thread writes the events, with one fast path: where `client` is a plain socket, the request's thread sleeps once the
    head and the first piece are written, and the thread that reads Triton's streams writes each piece to the socket as
    it arrives. Anything but a piece (the end, a failure, a client that left or reads too slowly) wakes the request's
    thread, which goes on as if it had never slept.

    `wait` and then `body` are for one thread; `close` gives the answer up wherever it is.
    """

    def __init__(
        self,
        begin: Callable[[StreamBuffer | None], StartedAnswer],
        shape: StreamShape,
        prepared: Prepared,
        record: RequestRecord,
        cancellation: Cancellation,
        client: socket.socket | None = None,
    ) -> None:
        """`begin` returns with the first event; its events must come without waiting while the buffer holds pieces."""
        self._shape = shape
        self._prepared = prepared
        self._record = record
        self._cancellation = cancellation
        self._client = client
        self._buffer = StreamBuffer() if client else None
        self._begin = begin
        self._first: list[Event] = []
        self._events: Generator[Event] | None = None
        self._unsent = b""
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = threading.Thread(target=self._start, name="first event", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Whether the first event is there; raises what the answer failed with instead."""
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                return False
            self._thread = None  # one that has ended still weighs kilobytes, for as long as the answer takes
        self._raise_failure()
        return True

    def body(self, heartbeat_s: float) -> Iterator[str]:
        """The text of the response; it runs when the request's context is gone."""
        try:
            yield from self._texts(heartbeat_s)
        except GeneratorExit:
            self._record.error_code = Cancelled.code
            raise
        except GlmServeError as error:
            self._record.error_code = error.code
            yield from self._shape.failure(error)
        except Exception as error:  # the request's outer edge
            structlog.get_logger().error("unexpected_error", request_id=self._record.request_id, exc_info=error)
            self._record.error_code = GlmServeError.code
            yield from self._shape.failure(GlmServeError())

    def write_directly(self) -> None:
        """The fast path: sleeps while pieces are written to the socket, and returns when the next event is no piece.

        Raises Cancelled when the client is gone, or what reading a piece failed with.
        """
        if self._client is None or self._buffer is None:
            return
        try:
            while self._buffer.next_is_piece() or self._buffer.is_waiting():
                if self._buffer.attach(self._on_message):
                    self._buffer.wait_detached()
                elif self._buffer.next_is_piece():
                    self._unsent = self._next_chunk()
                self._raise_failure()
                self._client.sendall(self._unsent)
                self._unsent = b""
        except OSError as error:
            raise Cancelled("The client went away.") from error

    def close(self) -> None:
        """Cancels what still runs; harmless at the end of an answer."""
        self._cancellation.cancel()
        if self._thread is not None:
            self._thread.join(_CLOSE_TIMEOUT_S)
        if self._events is not None:
            self._events.close()

    def _start(self) -> None:
        """Runs on the thread that waits for the first event."""
        try:
            first, self._events = self._begin(self._buffer)
            self._first.append(first)
        except BaseException as error:  # raised again by the request's thread
            self._failure = error

    def _texts(self, heartbeat_s: float) -> Iterator[str]:
        beginning, has_begun = "".join(self._shape.start(self._prepared)), False
        while not self.wait(heartbeat_s):
            yield HEARTBEAT if has_begun else beginning + HEARTBEAT
            has_begun = True
        assert self._events is not None
        for event in itertools.chain(self._first, self._events):
            text = self._text(event)
            if text:
                yield text if has_begun else beginning + text
                has_begun = True
            if has_begun and isinstance(event, Piece):  # the head must be written first, and pieces may be blank
                self.write_directly()

    def _text(self, event: Event) -> str:
        if isinstance(event, Piece):
            return "".join(self._shape.piece(event))
        self._record.answered(event)
        return "".join(self._shape.end(self._prepared, event))

    def _next_chunk(self) -> bytes:
        """The next piece as a chunk of HTTP/1.1; empty where it has no text."""
        assert self._events is not None
        text = self._text(next(self._events)).encode()
        return b"%X\r\n%b\r\n" % (len(text), text) if text else b""

    def _on_message(self) -> None:
        """Runs on the thread that reads Triton's streams, which must never wait for a client."""
        assert self._client is not None and self._buffer is not None
        try:
            while self._buffer.next_is_piece() and not self._unsent:
                self._unsent = self._next_chunk()
                if self._unsent:
                    self._unsent = self._unsent[self._client.send(self._unsent, socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            pass  # the socket took nothing
        except BaseException as error:  # raised again by the request's thread
            self._failure = error
        if self._unsent or self._failure is not None or not self._buffer.is_waiting():
            self._buffer.detach()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
