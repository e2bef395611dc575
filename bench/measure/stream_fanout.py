"""How steadily one gateway worker passes on 256 streams at once, and in how much memory."""

from __future__ import annotations

import itertools
import json
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from bench.checkpoints.synthetic import DEMO
from bench.harness import Run
from bench.records import Row
from bench.servers.processes import Server, fake_triton, gateway_before

STREAMS = 256
BEAT_MS = 50.0
_THREADS = 320  # of which one in eight is kept for rejections
_TOKENS = 160  # eight seconds of them
_RAMP_S = 2.0  # the streams begin one after another, so that their beats are spread evenly
_GIVE_UP_S = 60.0
_PIECE_BYTES = 65_536
_EVENT = b'"content":"'


@dataclass
class _Stream:
    """One answer as its client reads it: when each piece of text came."""

    connection: socket.socket
    times: list[float] = field(default_factory=list)
    held: bytes = b""

    def read(self) -> bool:
        """Takes what has come; False at the end of the answer."""
        piece = self.connection.recv(_PIECE_BYTES)
        now = time.perf_counter()
        events = (self.held + piece).split(b"\n\n")
        self.held = events.pop()
        self.times += [now for event in events if _EVENT in event and b'"content":""' not in event]
        return bool(piece) and b"[DONE]" not in b"".join(events)


@contextmanager
def _timer() -> Iterator[list[float]]:
    """The gaps, in ms, of a thread that only wakes at the beat: how unsteady the machine itself is meanwhile."""
    over, gaps_ms = threading.Event(), list[float]()

    def run() -> None:
        due = last = time.perf_counter()
        while not over.is_set():
            due += BEAT_MS / 1000
            time.sleep(max(0.0, due - time.perf_counter()))
            now = time.perf_counter()
            gaps_ms.append(1000 * (now - last))
            last = now

    thread = threading.Thread(target=run, name="timer", daemon=True)
    thread.start()
    try:
        yield gaps_ms
    finally:
        over.set()
        thread.join(_GIVE_UP_S)


def measure(run: Run) -> list[Row]:
    """One row: gaps between the pieces of text of all streams, and the worker's memory at its peak."""
    build = run.build(DEMO)

    def one_round(_number: int) -> dict[str, float]:
        with fake_triton(BEAT_MS) as triton, gateway_before(build, triton, _THREADS) as gateway:
            began, before_s = time.perf_counter(), gateway.cpu_s()
            with _timer() as timer_gaps_ms:
                streams = _run(gateway)
            seconds = time.perf_counter() - began
            cores, memory_mb = (gateway.cpu_s() - before_s) / seconds, gateway.peak_memory_mb()
        p50, p99 = np.percentile(_gaps_ms(streams), (50, 99))
        timer_p99 = np.percentile(timer_gaps_ms, 99)
        return {
            "gap_p50_ms": float(p50),
            "gap_p99_ms": float(p99),
            "timer_p99_ms": float(timer_p99),
            "memory_mb": memory_mb,
            "cores": cores,
        }

    return [run.row(streams=STREAMS, beat_ms=BEAT_MS, **run.spreads("Streams", one_round))]


def _run(gateway: Server) -> list[_Stream]:
    """All streams, read by one thread; each must come to its end."""
    streams: list[_Stream] = []
    give_up = time.monotonic() + _GIVE_UP_S
    with selectors.DefaultSelector() as selector:
        began = time.perf_counter()
        while len(streams) < STREAMS or selector.get_map():
            if time.monotonic() > give_up:
                raise TimeoutError(f"{len(selector.get_map())} of {STREAMS} streams did not end.")
            if len(streams) < STREAMS and time.perf_counter() >= began + _RAMP_S * len(streams) / STREAMS:
                streams.append(_Stream(_open_stream(gateway)))
                selector.register(streams[-1].connection, selectors.EVENT_READ, streams[-1])
            for key, _ in selector.select(_RAMP_S / STREAMS):
                if not key.data.read():
                    selector.unregister(key.fileobj)
                    key.data.connection.close()
    return streams


def _open_stream(gateway: Server) -> socket.socket:
    message = {"role": "user", "content": "What is in the picture?"}
    body = json.dumps({"messages": [message], "max_tokens": _TOKENS, "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    connection = socket.create_connection((gateway.host, gateway.port), _GIVE_UP_S)
    connection.sendall(head.encode() + body)
    return connection


def _gaps_ms(streams: list[_Stream]) -> list[float]:
    """Gaps while all streams ran: from the last one's first piece to the first one's last."""
    if min(len(stream.times) for stream in streams) < _TOKENS / 2:
        raise RuntimeError("A stream broke off; the gateway's log in bench/.cache says why.")
    begin, end = max(stream.times[0] for stream in streams), min(stream.times[-1] for stream in streams)
    return [
        1000 * (after - before)
        for stream in streams
        for before, after in itertools.pairwise(stream.times)
        if begin <= before and after <= end
    ]
