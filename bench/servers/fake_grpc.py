"""The server's side of gRPC over h2, as little as a fake Triton needs: one request message a call, many replies in one
write."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import FlowControlError
from h2.settings import SettingCodes

_CONFIG = H2Configuration(
    client_side=False,
    header_encoding=None,
    validate_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_inbound_headers=False,
    normalize_outbound_headers=False,
)
_WINDOW = 1 << 30  # large, so that a client never waits before it sends
_FRAME_BYTES = 1 << 17  # where h2 reads large messages fastest
_SETTINGS: dict[SettingCodes | int, int] = {
    SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW,
    SettingCodes.MAX_FRAME_SIZE: _FRAME_BYTES,
    SettingCodes.MAX_CONCURRENT_STREAMS: 1 << 16,  # h2's own 100 would make further calls wait
}
_STATUS_OK = [(b":status", b"200"), (b"content-type", b"application/grpc")]
_TRAILERS = [(b"grpc-status", b"0")]
_PREFIX_BYTES = 5  # before each gRPC message: a flag and its length


@dataclass(eq=False)
class Call:
    """One call of a client; `waiting` holds what the client has no room for yet."""

    stream_id: int
    received: list[bytes] = field(default_factory=list)
    waiting: deque[bytes] = field(default_factory=deque)
    is_open: bool = True
    has_begun: bool = False
    ends: bool = False


class Connection(asyncio.Protocol):
    """One client's connection. What is sent goes out at the next `flush`."""

    def __init__(self, answer: Callable[[Connection, Call, bytes], None]) -> None:
        """`answer` is called once for each call, with the whole request message."""
        self._answer = answer
        self._http = H2Connection(_CONFIG)
        self._calls: dict[int, Call] = {}
        self._blocked: set[Call] = set()  # until the client makes room
        self._transport: asyncio.WriteTransport | None = None

    def send(self, call: Call, message: bytes) -> None:
        """Sends one message that `framed` has made."""
        call.waiting.append(message)
        self._push(call)

    def end(self, call: Call) -> None:
        """Ends the call after everything sent before."""
        call.ends = True
        self._push(call)

    def flush(self) -> None:
        if self._transport is not None and (data := self._http.data_to_send()):
            self._transport.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._http.initiate_connection()
        self._http.update_settings(_SETTINGS)
        self._http.increment_flow_control_window(_WINDOW)
        self.flush()

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        for call in self._calls.values():
            call.is_open = False

    def data_received(self, data: bytes) -> None:
        for event in self._http.receive_data(data):
            self._take(event)
        self.flush()

    def _take(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self._calls[event.stream_id] = Call(event.stream_id)
        elif isinstance(event, DataReceived):
            self._calls[event.stream_id].received.append(event.data)
            self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            call = self._calls[event.stream_id]
            self._answer(self, call, b"".join(call.received)[_PREFIX_BYTES:])
        elif isinstance(event, StreamReset) and event.stream_id in self._calls:
            self._calls.pop(event.stream_id).is_open = False
        elif isinstance(event, WindowUpdated | RemoteSettingsChanged):
            blocked, self._blocked = self._blocked, set()
            for call in blocked:
                self._push(call)

    def _push(self, call: Call) -> None:
        """Writes what the client has room for; the response headers leave with the first message."""
        if call.is_open and not call.has_begun:
            self._http.send_headers(call.stream_id, _STATUS_OK)
            call.has_begun = True
        while call.is_open and call.waiting:
            try:
                self._http.send_data(call.stream_id, call.waiting[0])
            except FlowControlError:  # raised before anything is sent
                self._blocked.add(call)
                return
            call.waiting.popleft()
        if call.is_open and call.ends:
            self._http.send_headers(call.stream_id, _TRAILERS, end_stream=True)
            call.is_open = False
            del self._calls[call.stream_id]


def framed(message: bytes) -> bytes:
    """A message with gRPC's prefix: not compressed, and its length."""
    return struct.pack("!BI", 0, len(message)) + message
