"""Where the gateway's own processor time goes: a request with a photo, stage by stage, on one core."""

from __future__ import annotations

import json
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median

from bench.checkpoints.builds import FP32, build_of, checkpoint_of
from bench.checkpoints.synthetic import THIN
from bench.load.in_process import Preparer, generate
from bench.load.prompts import PHOTO, Asker, Question
from bench.records import Row, Spread
from bench.servers.gateways import Server, gateway_before, paced_triton
from gateway.chat.service import ChatService
from gateway.deadline import Deadline
from gateway.limits.api_keys import KeyStore, create_key
from gateway.limits.auth import Caller
from gateway.limits.rate_limit import RateLimitCounters, RateLimiter
from gateway.schemas.vision import parse_vision
from gateway.settings import GatewaySettings
from gateway.triton.backend import Cancellation
from gateway.triton.grpc_client import TritonBackend
from gateway.triton.load_balancer import LoadBalancer

TWELVE_MEGAPIXELS = (4000, 3000)
_REQUESTS = {PHOTO: 200, TWELVE_MEGAPIXELS: 12}
_TIMES = {PHOTO: 60, TWELVE_MEGAPIXELS: 8}
_THREADS = 64
_PATIENCE_S = 60.0
_FAR = "203.0.113.7"
_MANY = 10**9

Say = Callable[[str], None]
Stages = dict[str, Callable[[], object]]


def measure(rounds: int, say: Say) -> list[Row]:
    """A row for each size of picture: the whole request's processor time, and that of its stages, in milliseconds."""
    build = build_of(checkpoint_of(THIN, say), FP32, say)
    asker = Asker(Preparer(build).tokenizer, seed=13)
    rows = []
    with paced_triton(0.0) as triton, gateway_before(build, triton, _THREADS) as gateway:
        for size, requests in _REQUESTS.items():
            question = asker.question(size)
            whole_ms = [_whole_ms(gateway, question, requests) for _ in range(rounds + 1)][1:]  # the first warms up
            stages_ms = _stages_ms(build, triton, question, _TIMES[size])
            say(f"{size[0]}x{size[1]}: {median(whole_ms):.1f} ms, of which {stages_ms}")
            rows.append(
                {
                    "image": f"{size[0]}x{size[1]}",
                    **Spread.of(whole_ms).fields("whole_ms"),
                    "stages_ms": stages_ms,
                    "requests": requests,
                    "rounds": rounds,
                    "threads": 0,
                }
            )
    return rows


def _whole_ms(gateway: Server, question: Question, requests: int) -> float:
    """Processor time of the gateway's process for a request, one after another."""
    body = json.dumps(question.body(max_tokens=1)).encode()
    before_s = gateway.cpu_s()
    for _ in range(requests):
        with urllib.request.urlopen(f"{gateway.url}/v1/chat/vision", body, timeout=_PATIENCE_S) as reply:
            reply.read()
    return 1000 * (gateway.cpu_s() - before_s) / requests


def _stages_ms(build: Path, triton_port: int, question: Question, times: int) -> dict[str, float]:
    """Medians in this process, each stage called by itself with the gateway's own code."""
    with tempfile.TemporaryDirectory() as folder, closing(_backend(triton_port)) as backend:
        stages = _stages(build, Path(folder) / "keys.json", backend, question)
        found = {name: _median_ms(stage, times) for name, stage in stages.items()}
    found["decode, resize, cut"] -= found["base64, header, tokens"]  # which it begins with
    return {name: round(ms, 2) for name, ms in found.items()}


def _backend(triton_port: int) -> TritonBackend:
    return TritonBackend(f"grpc://127.0.0.1:{triton_port}", _PATIENCE_S)


def _stages(build: Path, keys_file: Path, backend: TritonBackend, question: Question) -> Stages:
    secret = create_key(keys_file, "bench")
    settings = GatewaySettings(
        build=build, keys_file=keys_file, requests_per_minute=_MANY, address_requests_per_minute=_MANY
    )
    keys, rate_limiter, service = (
        KeyStore(keys_file),
        RateLimiter(settings, RateLimitCounters("")),
        ChatService(settings, LoadBalancer("grpc://127.0.0.1:1", lambda _url: backend)),
    )
    caller = Caller(_FAR, keys.find(secret))
    body = json.dumps(question.body(max_tokens=1)).encode()
    conversation = parse_vision(body).conversation
    request = Preparer(build).request(question, max_tokens=1)
    return {
        "key": lambda: keys.find(secret),
        "limits": lambda: _charge(rate_limiter, caller),
        "parsing": lambda: parse_vision(body),
        "base64, header, tokens": lambda: service.count(conversation, Deadline.after(_PATIENCE_S)),
        "decode, resize, cut": lambda: service.prepare(conversation, Deadline.after(_PATIENCE_S), Cancellation()),
        "gRPC": lambda: generate(backend, request),
    }


def _charge(rate_limiter: RateLimiter, caller: Caller) -> None:
    rate_limiter.check_address(caller.address, is_local=False)
    rate_limiter.charge_request(caller)


def _median_ms(stage: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        began = time.thread_time()
        stage()
        taken.append(1000 * (time.thread_time() - began))
    return median(taken)
