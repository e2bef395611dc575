"""As much of HTTP/2 as it takes to answer gRPC calls for next to nothing: frames written by hand, many in one send."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD_BYTES = 9
_DATA, _HEADERS, _RST, _SETTINGS, _PING, _WINDOW = 0, 1, 3, 4, 6, 8
_ACK = _END_STREAM = 1
_END_HEADERS = 4
_FIRST_WINDOW = 65_535  # of either side, until it says otherwise
_OUR_WINDOW = 1 << 30
_TOP_UP = 1 << 24  # bytes read after which the client may send as many again
_INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 4, 5  # settings
# Heads in HPACK, nothing of them indexed: ":status: 200" is entry 8, "content-type" the name of entry 31.
_STATUS_OK = b"\x88" + b"\x0f\x10\x10application/grpc"
_TRAILERS = b"\x00\x0bgrpc-status\x010"


@dataclass(eq=False)
class Call:
    """One call of a client; `window` is how many bytes it still takes."""

    number: int
    window: int
    received: bytearray = field(default_factory=bytearray)
    waiting: deque[bytes] = field(default_factory=deque)
    is_open: bool = True
    is_begun: bool = False
    ends: bool = False


class Connection(asyncio.Protocol):
    """One client's connection. What is sent goes out at the next `flush`."""

    def __init__(self, answer: Callable[[Connection, Call, bytes], None]) -> None:
        """`answer` is handed every call with its request's message, once that is whole."""
        self._answer = answer
        self._calls: dict[int, Call] = {}
        self._window = self._call_window = _FIRST_WINDOW
        self._read = bytearray()
        self._is_greeted = False
        self._out = bytearray()
        self._unreported = 0
        self._transport: asyncio.WriteTransport | None = None

    def send(self, call: Call, message: bytes) -> None:
        """One message, which `as_sent` has made ready."""
        call.waiting.append(message)
        self._push(call)

    def end(self, call: Call) -> None:
        """After all that was sent."""
        call.ends = True
        self._push(call)

    def flush(self) -> None:
        if self._transport is not None and self._out:
            self._transport.write(bytes(self._out))
            self._out.clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        settings = struct.pack("!HIHI", _INITIAL_WINDOW_SIZE, _OUR_WINDOW, _MAX_FRAME_SIZE, (1 << 24) - 1)
        self._out += _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW, 0, 0, struct.pack("!I", _OUR_WINDOW))
        self.flush()

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        for call in self._calls.values():
            call.is_open = False

    def data_received(self, data: bytes) -> None:
        self._read += data
        if not self._is_greeted and len(self._read) >= len(_PREFACE):
            self._is_greeted = True
            del self._read[: len(_PREFACE)]
        at = 0
        while self._is_greeted and len(self._read) - at >= _HEAD_BYTES:
            size = int.from_bytes(self._read[at : at + 3], "big")
            end = at + _HEAD_BYTES + size
            if len(self._read) < end:
                break
            kind, flags, number = struct.unpack_from("!BBI", self._read, at + 3)
            self._take(kind, flags, number & 0x7FFF_FFFF, self._read[at + _HEAD_BYTES : end])
            at = end
        del self._read[:at]
        self.flush()

    def _take(self, kind: int, flags: int, number: int, payload: bytearray) -> None:
        if kind == _HEADERS:
            self._calls[number] = Call(number, self._call_window)
        elif kind == _DATA and number in self._calls:
            self._calls[number].received += payload
            self._top_up(len(payload))
        elif kind == _RST and number in self._calls:
            self._calls.pop(number).is_open = False
        elif kind == _SETTINGS and not flags & _ACK:
            self._settle(payload)
        elif kind == _PING and not flags & _ACK:
            self._out += _frame(_PING, _ACK, 0, payload)
        elif kind == _WINDOW:
            self._widen(number, int.from_bytes(payload, "big"))
        if kind in (_HEADERS, _DATA) and flags & _END_STREAM and number in self._calls:
            call = self._calls[number]
            self._answer(self, call, bytes(memoryview(call.received)[5:]))  # after the flag and length of gRPC

    def _top_up(self, count: int) -> None:
        self._unreported += count
        if self._unreported >= _TOP_UP:
            self._out += _frame(_WINDOW, 0, 0, struct.pack("!I", self._unreported))
            self._unreported = 0

    def _settle(self, payload: bytearray) -> None:
        for name, value in struct.iter_unpack("!HI", payload):
            if name == _INITIAL_WINDOW_SIZE:
                for call in self._calls.values():
                    call.window += value - self._call_window
                self._call_window = value
        self._out += _frame(_SETTINGS, _ACK, 0, b"")

    def _widen(self, number: int, count: int) -> None:
        if number == 0:
            self._window += count
        elif number in self._calls:
            self._calls[number].window += count
        for call in [call for call in self._calls.values() if call.waiting]:
            self._push(call)

    def _push(self, call: Call) -> None:
        """Writes what the client has room for."""
        if not call.is_begun:
            call.is_begun = True
            self._out += _frame(_HEADERS, _END_HEADERS, call.number, _STATUS_OK)
        while call.waiting and len(call.waiting[0]) <= min(call.window, self._window):
            message = call.waiting.popleft()
            call.window -= len(message)
            self._window -= len(message)
            self._out += _frame(_DATA, 0, call.number, message)
        if call.ends and not call.waiting and call.number in self._calls:
            del self._calls[call.number]
            call.is_open = False
            self._out += _frame(_HEADERS, _END_HEADERS | _END_STREAM, call.number, _TRAILERS)


def as_sent(message: bytes) -> bytes:
    """A message with gRPC's five bytes before it: not compressed, and its length."""
    return struct.pack("!BI", 0, len(message)) + message


def _frame(kind: int, flags: int, number: int, payload: bytes | bytearray) -> bytes:
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, number) + payload
