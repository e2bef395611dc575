"""What the gateway is measured with: a fake Triton that keeps its beat, and a client that notes every piece."""

from __future__ import annotations

import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest

from bench.measure.stream_fanout import _gaps_ms, _Stream
from bench.servers.processes import Server, fake_triton
from gateway.triton.backend import Chunk, GenerateRequest
from gateway.triton.grpc_client import TritonBackend
from glmserve.contract import Finish
from glmserve.sampling_parameters import Sampling

WAIT_S = 20
BEAT_MS = 20.0
TOKENS = 5
REQUEST = GenerateRequest("r", np.arange(9), None, (), Sampling(max_tokens=TOKENS), WAIT_S)


def test_the_fake_triton_sends_a_token_a_beat() -> None:
    with fake_triton(BEAT_MS) as port, closing(TritonBackend(f"grpc://127.0.0.1:{port}", WAIT_S)) as backend:
        give_up = time.monotonic() + WAIT_S
        while not backend.models_ready():
            assert time.monotonic() < give_up
        asked_at = time.perf_counter()
        chunks = list(backend.generate(REQUEST))
        took_s = time.perf_counter() - asked_at
    assert [len(chunk.tokens) for chunk in chunks] == [1] * TOKENS + [0] and chunks[-1].finish == Finish.LENGTH
    assert took_s >= TOKENS * BEAT_MS / 1000


def event(content: str) -> bytes:
    return f"data: {json.dumps({'delta': {'content': content}}, separators=(',', ':'))}\n\n".encode()


def test_a_piece_is_noted_when_it_came_and_however_it_was_cut() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = _Stream(ours)
        for piece in (event("") + event("a")[:10], event("a")[10:] + event("b"), event("c")):
            theirs.sendall(piece)
            assert stream.read()
        assert len(stream.times) == 3 and stream.times == sorted(stream.times)
        theirs.sendall(b"data: [DONE]\n\n")
        assert not stream.read()


def test_only_gaps_while_all_streams_run_count_and_one_that_broke_off_is_told() -> None:
    beat = [float(i) for i in range(200)]
    early, late = (_Stream(socket.socket(), [at + begin for at in beat]) for begin in (0.0, 10.5))
    gaps = _gaps_ms([early, late])
    assert set(gaps) == {1000.0} and len(gaps) == 188 + 188
    broken = _Stream(socket.socket(), beat[:3])
    with pytest.raises(RuntimeError, match="broke off"):
        _gaps_ms([early, broken])
    for stream in (early, late, broken):
        stream.connection.close()


def test_a_servers_processor_time_and_memory_are_read() -> None:
    us = Server("127.0.0.1", 1, os.getpid())
    before_s = us.cpu_s()
    give_up = time.monotonic() + WAIT_S
    while us.cpu_s() == before_s and time.monotonic() < give_up:
        pass
    assert us.cpu_s() > before_s and us.peak_memory_mb() > 10


def _timed(backend: TritonBackend) -> list[tuple[Chunk, float]]:
    """An answer's messages, and when each of them came."""
    return [(chunk, time.perf_counter()) for chunk in backend.generate(REQUEST)]


def test_the_fake_triton_answers_many_calls_at_once() -> None:
    """HTTP/2 servers often take a hundred at most; the last call of 120 would then wait for the first to end."""
    with fake_triton(400.0) as port, closing(TritonBackend(f"grpc://127.0.0.1:{port}", WAIT_S)) as backend:
        list(backend.generate(REQUEST))
        with ThreadPoolExecutor(120) as pool:
            calls = list(pool.map(lambda _: _timed(backend), range(120)))
    assert max(call[0][1] for call in calls) < min(call[-1][1] for call in calls), "one began after another's end"
    assert all(call[-1][0].finish == Finish.LENGTH for call in calls)
