"""How steadily one gateway worker passes on 256 streams at once, and in how much memory."""

from __future__ import annotations

import json
import selectors
import socket
import time
from dataclasses import dataclass, field

import numpy as np

from bench.checkpoints.synthetic import DEMO
from bench.harness import Run
from bench.load.beside import at_a_beat
from bench.records import Row
from bench.servers.processes import Server, fake_triton, gateway_before

STREAMS = 256
BEAT_MS = 50.0
_THREADS = 320  # of which one in eight is kept for rejections
_TOKENS = 160  # eight seconds of them
_RAMP_S = 2.0  # the streams begin one after another, so that their beats are spread evenly
_GIVE_UP_S = 60.0
_PIECE_BYTES = 65_536


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
        self.times += [now for event in events if b'"content":"' in event and b'"content":""' not in event]
        return bool(piece) and b"[DONE]" not in b"".join(events)


def measure(run: Run) -> list[Row]:
    """One row: gaps between the pieces of text of all streams, and the worker's memory at its peak."""
    build = run.build(DEMO)

    def one_round(_number: int) -> dict[str, float]:
        with fake_triton(BEAT_MS) as triton, gateway_before(build, triton, _THREADS) as gateway:
            began, before_s = time.perf_counter(), gateway.cpu_s()
            with at_a_beat(time.perf_counter, BEAT_MS / 1000) as timer_ticks:
                streams = _run(gateway)
            cores = (gateway.cpu_s() - before_s) / (time.perf_counter() - began)
            memory_mb = gateway.peak_memory_mb()
        p50, p99 = np.percentile(_gaps_ms(streams), (50, 99))
        timer_p99 = np.percentile(1000 * np.diff(timer_ticks), 99)
        return {"gap_p50_ms": p50, "gap_p99_ms": p99, "timer_p99_ms": timer_p99, "memory_mb": memory_mb, "cores": cores}

    return [run.row(streams=STREAMS, beat_ms=BEAT_MS, **run.spreads("Streams", one_round))]


def _run(gateway: Server) -> list[_Stream]:
    """All streams, read by one thread; each must come to its end."""
    streams: list[_Stream] = []
    began = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        while len(streams) < STREAMS or selector.get_map():
            passed_s = time.perf_counter() - began
            if passed_s > _GIVE_UP_S:
                raise TimeoutError(f"{len(selector.get_map())} of {STREAMS} streams did not end.")
            if len(streams) < STREAMS and passed_s >= _RAMP_S * len(streams) / STREAMS:
                streams.append(_Stream(_open_stream(gateway)))
                selector.register(streams[-1].connection, selectors.EVENT_READ, streams[-1])
            for key, _ in selector.select(_RAMP_S / STREAMS):
                if not key.data.read():
                    selector.unregister(key.fileobj)
                    key.data.connection.close()
    return streams


def _open_stream(gateway: Server) -> socket.socket:
    message = {"role": "user", "content": "What is in the picture?"}
    body = json.dumps({"messages": [message], "max_tokens": _TOKENS, "stream": True})
    connection = socket.create_connection((gateway.host, gateway.port), _GIVE_UP_S)
    fields = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    head = f"POST /v1/chat/completions HTTP/1.1\r\n{fields}\r\n\r\n"
    connection.sendall((head + body).encode())
    return connection


def _gaps_ms(streams: list[_Stream]) -> list[float]:
    """Gaps while all streams ran: from the last one's first piece to the first one's last."""
    if min(len(stream.times) for stream in streams) < _TOKENS / 2:
        raise RuntimeError("A stream broke off; the gateway's log in bench/.cache says why.")
    times = [np.array(stream.times) for stream in streams]
    begin, end = max(one[0] for one in times), min(one[-1] for one in times)
    gaps = np.concatenate([np.diff(one[(one >= begin) & (one <= end)]) for one in times])
    return list(1000 * gaps)
