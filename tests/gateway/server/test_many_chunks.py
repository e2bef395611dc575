"""A body in very many chunks is refused, and leaves no memory behind."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from live_gateway import WAIT_S, running_gateway

CHUNKS = 100_000
MAX_BODY = 50_000
BODIES, WARM_UPS = 6, 4
MOST_GROWTH_MIB = 1.0
FIELDS = ("Host: localhost", "Content-Type: application/json", "Transfer-Encoding: chunked")
HEAD = "\r\n".join(("POST /v1/chat/vision HTTP/1.1", *FIELDS, "", "")).encode()


def refused(url: str) -> bytes:
    """The status line that comes back to a body of one byte a chunk."""
    place = urlsplit(url)
    with socket.create_connection((str(place.hostname), int(place.port or 0)), WAIT_S) as client:
        with suppress(OSError):  # it may be hung up on before all is sent
            client.sendall(HEAD + b"1\r\nx\r\n" * CHUNKS + b"0\r\n\r\n")
        with suppress(OSError):
            return client.recv(65_536).partition(b"\r\n")[0]
    return b""


def resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_bodies_in_very_many_chunks_are_refused_and_leave_no_memory_behind(build: Path) -> None:
    with running_gateway(build, MAX_BODY_BYTES=str(MAX_BODY), THREADS="2") as gateway:  # each keeps memory of its own
        worker = int(Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text("ascii").split()[0])
        for _ in range(WARM_UPS):
            assert refused(gateway.url).startswith(b"HTTP/1.1 413")
        before = resident_mib(worker)
        for _ in range(BODIES):
            refused(gateway.url)
        assert resident_mib(worker) - before <= MOST_GROWTH_MIB
