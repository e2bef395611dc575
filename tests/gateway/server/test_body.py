"""A body comes from gunicorn whole, however it was sent, and takes nothing of the request behind it."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.errors import ParseException
from gunicorn.http.unreader import SocketUnreader

from gateway.server.body import pieces_of

NEXT = b"POST /next HTTP/1.1\r\n"
MIB = 1 << 20


@contextmanager
def sent(*writes: bytes, pause_s: float = 0.0, read_ahead: bytes = b"") -> Iterator[SocketUnreader]:
    """What gunicorn reads from: a client's writes, after what came with the head."""
    ours, theirs = socket.socketpair()

    def send() -> None:
        with theirs, suppress(OSError):
            for data in writes:
                theirs.sendall(data)
                time.sleep(pause_s)

    sender = threading.Thread(target=send)
    sender.start()
    unreader = SocketUnreader(ours)
    unreader.unread(read_ahead)
    try:
        yield unreader
    finally:
        ours.close()
        sender.join()


def chunked(unreader: SocketUnreader) -> Any:
    return Body(ChunkedReader(SimpleNamespace(parse_headers=lambda *_, **__: []), unreader))


@pytest.mark.parametrize("count", [0, 1, 100, 3 * MIB + 7])
@pytest.mark.parametrize("ahead", [0, 1, 60, 5000])
def test_a_body_of_known_length_is_whole_and_leaves_what_follows(count: int, ahead: int) -> None:
    data = bytes(range(256)) * (count // 256 + 1)
    data, whole = data[:count], data[:count] + NEXT
    with sent(whole[ahead:], read_ahead=whole[:ahead]) as unreader:
        body = Body(LengthReader(unreader, count))
        assert b"".join(pieces_of(body)) == data
        assert body.reader.length == 0 and body.read(10) == b"" and not body.failed
        assert _rest(unreader) == NEXT


def test_a_body_that_breaks_off_ends_early() -> None:
    with sent(b"x" * 5) as unreader:
        assert b"".join(pieces_of(Body(LengthReader(unreader, 9)))) == b"x" * 5


def test_a_body_that_comes_by_and_by_is_whole() -> None:
    with sent(b"ab", b"cd", b"e", pause_s=0.01) as unreader:
        assert b"".join(pieces_of(Body(LengthReader(unreader, 5)))) == b"abcde"


def test_a_chunked_body_is_whole_and_leaves_what_follows() -> None:
    data = b"y" * 200_000
    written = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (data[:1], data[1:70_000], data[70_000:]))
    with sent(written + b"0\r\n\r\n" + NEXT) as unreader:
        body = chunked(unreader)
        assert b"".join(pieces_of(body)) == data and body.read(10) == b""
        assert _rest(unreader) == NEXT


def test_broken_chunks_are_told_and_no_other_request_follows() -> None:
    with sent(b"zz\r\nabc\r\n") as unreader:
        body = chunked(unreader)
        with pytest.raises(ParseException):
            list(pieces_of(body))
        assert body.failed


def test_another_servers_stream_is_read_as_any_file() -> None:
    assert b"".join(pieces_of(io.BytesIO(b"z" * (2 * MIB + 1)))) == b"z" * (2 * MIB + 1)


def _rest(unreader: SocketUnreader) -> bytes:
    """What gunicorn will read as the next request."""
    return unreader.take_buffered() + b"".join(iter(unreader.chunk, b""))
