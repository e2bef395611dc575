"""Where the gateway's own processor time goes: a request with a photo, stage by stage, on one core."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median

from bench.checkpoints.synthetic import THIN
from bench.harness import Run, seconds
from bench.load.closed_loop import ask
from bench.load.in_process import Preparer
from bench.load.prompts import PHOTO, Question, QuestionMaker
from bench.records import Row
from bench.servers.processes import fake_triton, gateway_before
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
from launcher.supervision.vital_signs import children_of

_REQUESTS = {PHOTO: 200, (4000, 3000): 12}
_STAGE_SHARE = 3  # a stage is called a third as often as the whole gateway, and at least eight times
_TIMEOUT_S = 60.0
_REMOTE = "203.0.113.7"
_MANY = 10**9
_COUNTED, _DECODED = "base64, header, tokens", "decode, resize, cut"


def measure(run: Run) -> list[Row]:
    """A row for each image size: the whole request's processor time, and that of its stages, in milliseconds."""
    build, rows = run.build(THIN), []
    maker = QuestionMaker(Preparer(build).tokenizer, seed=13)
    with fake_triton(0.0) as triton, gateway_before(build, triton) as gateway:
        for size, requests in _REQUESTS.items():
            question = maker.question(size)

            def one_round(_number: int, question: Question = question, requests: int = requests) -> dict[str, float]:
                before_s = gateway.cpu_s()
                for _ in range(requests):
                    ask(gateway.url, question, max_tokens=1)
                return {"whole_ms": 1000 * (gateway.cpu_s() - before_s) / requests}

            name = f"{size[0]}x{size[1]}"
            whole = run.spreads(name, one_round, warm_ups=1)
            stages_ms = _stages_ms(build, triton, question, max(8, requests // _STAGE_SHARE))
            rows.append({"image": name, **whole, "stages_ms": stages_ms, "requests": requests, **run.row()})
    return rows


def _stages_ms(build: Path, triton_port: int, question: Question, times: int) -> dict[str, float]:
    """Medians in this process and its decoder; the gateway's own code, called stage by stage."""
    backend, others = TritonBackend(f"grpc://127.0.0.1:{triton_port}", _TIMEOUT_S), children_of(os.getpid())
    with tempfile.TemporaryDirectory() as folder, closing(backend):
        stages = _stages(build, Path(folder) / "keys.json", backend, question)
        stages[_DECODED]()
        (decoder,) = children_of(os.getpid()) - others

        def cpu_s() -> float:
            return time.thread_time() + int(Path(f"/proc/{decoder}/schedstat").read_bytes().split()[0]) / 1e9

        found = {name: 1000 * median(seconds(stage, times, cpu_s)) for name, stage in stages.items()}
    found[_DECODED] -= found[_COUNTED]  # which it begins with
    return {name: round(ms, 2) for name, ms in found.items()}


def _stages(
    build: Path, keys_file: Path, backend: TritonBackend, question: Question
) -> dict[str, Callable[[], object]]:
    secret = create_key(keys_file, "bench")
    settings = GatewaySettings(
        build=build, keys_file=keys_file, requests_per_minute=_MANY, address_requests_per_minute=_MANY
    )
    keys, limiter = KeyStore(keys_file), RateLimiter(settings, RateLimitCounters(""))
    service = ChatService(settings, LoadBalancer("grpc://127.0.0.1:1", lambda _url: backend))
    caller = Caller(_REMOTE, keys.find(secret))
    body = question.body(max_tokens=1)
    conversation = parse_vision(body).conversation
    request = Preparer(build).request(question, max_tokens=1)

    def charge() -> None:
        limiter.check_address(caller.address, is_exempt=False)
        limiter.charge_request(caller)

    return {
        "key": lambda: keys.find(secret),
        "limits": charge,
        "parsing": lambda: parse_vision(body),
        _COUNTED: lambda: service.count(conversation, Deadline.after(_TIMEOUT_S)),
        _DECODED: lambda: service.prepare(conversation, Deadline.after(_TIMEOUT_S), Cancellation()),
        "gRPC": lambda: list(backend.generate(request)),
    }
