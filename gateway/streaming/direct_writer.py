"""Passes an answer's pieces on to its client on the thread that reads them from Triton, while its own thread sleeps.

A thread that is woken for each token of each stream takes Python's lock and the processor from all the others. So the
request's thread writes the first piece and sleeps; pieces are written where they arrive, until something else than a
piece comes, or the client reads more slowly than its answer grows. What waits, fails or ends is the thread's own work.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gateway.chat.generation import Event
from gateway.streaming.client_socket import CLIENT_SOCKET
from gateway.triton.stream_buffer import StreamBuffer
from glmserve.errors import Cancelled


class DirectStreamWriter:
    """The pieces of one answer on their way to one socket, as chunks of HTTP/1.1."""

    def __init__(
        self,
        client: socket.socket,
        stream_buffer: StreamBuffer,
        events: Iterator[Event],
        write: Callable[[Event], str],
    ) -> None:
        """`events` must give one piece for each that the mailbox holds, without waiting; `write` makes it text."""
        self._client = client
        self._mailbox = stream_buffer
        self._events = events
        self._write = write
        self._unsent = b""
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Returns when the next event is no piece, which the caller then asks for itself.

        Called by the request's thread when the response's head and its first piece are written. Raises Cancelled when
        the client is gone, or what reading a piece failed with.
        """
        try:
            self._run()
        except OSError as error:
            raise Cancelled("The client went away.") from error

    def _run(self) -> None:
        while self._mailbox.holds_piece() or self._mailbox.is_quiet():
            if self._mailbox.leave_to(self._pass_on):
                self._mailbox.sleep()
            elif self._mailbox.holds_piece():
                self._unsent = self._next()
            if self._failure is not None:
                raise self._failure
            self._client.sendall(self._unsent)
            self._unsent = b""

    def _pass_on(self) -> None:
        """Runs on the thread that brings the mail, which must not wait for anybody."""
        try:
            while self._mailbox.holds_piece() and not self._unsent:
                self._unsent = self._next()
                if self._unsent:
                    self._unsent = self._unsent[self._client.send(self._unsent, socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            pass  # nothing of it was taken
        except BaseException as error:  # handed to the request's thread
            self._failure = error
        if self._unsent or self._failure is not None or not self._mailbox.is_quiet():
            self._mailbox.take_back()

    def _next(self) -> bytes:
        text = self._write(next(self._events)).encode()
        return b"%X\r\n%b\r\n" % (len(text), text) if text else b""


def plain_socket(environ: Mapping[str, Any]) -> socket.socket | None:
    """The client's socket, if chunks of HTTP/1.1 written to it reach the client as they are."""
    client = environ.get(CLIENT_SOCKET)
    if type(client) is not socket.socket or client.gettimeout() is not None:  # with a timeout, every write may wait
        return None
    return client if environ.get("SERVER_PROTOCOL") == "HTTP/1.1" else None
