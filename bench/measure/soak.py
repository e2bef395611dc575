"""Random joins, departures, deadlines and seeds: at the end every slot is free and nothing has grown."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bench.baselines.bare_engine import BareEngine, bare_engine
from bench.load.in_process import Preparer
from bench.load.prompts import Asker
from gateway.triton.backend import GenerateRequest
from glmserve.engine.metrics import RUNNING, WAITING, Metric
from glmserve.engine.request import Event, Failed, Tokens
from glmserve.sampling_parameters import Sampling

CLIENTS = 24
"""More than there are slots, so that some always wait."""
_PROMPTS = 40
_SIZES = ((112, 112), (224, 224), (320, 160))
_PATIENCE_S = (0.001, 0.05, 60.0)
_SETTLE_S = 10.0
_SAMPLE_EVERY_S = 0.25
_WARM_UP_SHARE = 1 / 3
_MOST_GROWTH_MIB = 8.0
_PAGE_BYTES = 4096

Say = Callable[[str], None]


@dataclass(frozen=True)
class Sample:
    """What this process holds at one moment."""

    at_s: float
    rss_mib: float
    threads: int
    files: int

    @staticmethod
    def take(at_s: float) -> Sample:
        pages = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
        files = len(list(Path("/proc/self/fd").iterdir()))
        return Sample(at_s, pages * _PAGE_BYTES / 1024**2, threading.active_count(), files)


@dataclass(frozen=True)
class Summary:
    """How a soak ended; `endings` counts requests by how they ended, growth is from the end of the warm-up on."""

    seed: int
    seconds: float
    requests: int
    tokens: int
    endings: dict[str, int]
    running_at_end: int
    waiting_at_end: int
    rss_mib: float
    rss_growth_mib: float
    thread_growth: int
    file_growth: int
    passed: bool


class _Visit:
    """One request's events, counted; heard on one thread at a time."""

    def __init__(self, leaves_after: int) -> None:
        self._leaves_after = leaves_after
        self.tokens = 0
        self.ending = ""
        self.left = threading.Event()
        self.ended = threading.Event()

    def __call__(self, event: Event) -> None:
        if self.ended.is_set():
            self.ending = "an event after the last"
        if isinstance(event, Tokens):
            self.tokens += len(event.tokens)
            if self.tokens >= self._leaves_after:
                self.left.set()
        if event.is_last:
            self.ending = event.error.code if isinstance(event, Failed) else "done"
            self.ended.set()


class _Gauges:
    """The engine's last word on who runs and who waits."""

    def __init__(self) -> None:
        self._values: dict[str, float] = {}

    def __call__(self, metric: Metric, amount: float) -> None:
        if metric.name in (RUNNING.name, WAITING.name):
            self._values[metric.name] = amount

    def settled(self) -> tuple[int, int]:
        """Running and waiting once both are 0, or as they are when that does not come about."""
        give_up = time.monotonic() + _SETTLE_S
        while any(self._values.values()) and time.monotonic() < give_up:
            time.sleep(_SAMPLE_EVERY_S)
        return int(self._values.get(RUNNING.name, 0)), int(self._values.get(WAITING.name, 0))


def soak(build: Path, minutes: float, threads: int, seed: int, say: Say) -> Summary:
    """Runs the engine of a build in this process; a request that never ends is counted as such."""
    gauges, requests = _Gauges(), _requests(build, seed)
    samples: list[Sample] = []
    began = time.monotonic()
    give_up = began + 60 * minutes
    with bare_engine(build, threads, gauges) as engine:
        clients = [_Client(engine, requests, random.Random(f"{seed} {n}"), give_up) for n in range(CLIENTS)]
        for client in clients:
            client.thread.start()
        next_word = began
        while time.monotonic() < give_up:
            samples.append(Sample.take(time.monotonic() - began))
            if time.monotonic() >= next_word:
                next_word += max(5.0, 60 * minutes / 20)
                say(f"{sum(client.endings.total() for client in clients)} requests, {samples[-1].rss_mib:.0f} MiB")
            time.sleep(_SAMPLE_EVERY_S)
        for client in clients:
            client.join()
        running, waiting = gauges.settled()
    return _summary(seed, clients, samples, running, waiting)


class _Client:
    """A thread that asks one thing after another; it owns its counts."""

    def __init__(self, engine: BareEngine, requests: list[GenerateRequest], rng: random.Random, give_up: float) -> None:
        self.endings: Counter[str] = Counter()
        self.tokens = 0
        self._engine, self._requests, self._rng, self._give_up = engine, requests, rng, give_up
        self.thread = threading.Thread(target=self._run, name="soak client", daemon=True)

    def join(self) -> None:
        self.thread.join(_PATIENCE_S[-1] + _SETTLE_S)

    def _run(self) -> None:
        rng = self._rng
        while time.monotonic() < self._give_up:
            request = replace(
                rng.choice(self._requests),
                sampling=Sampling(
                    max_tokens=rng.randint(1, 48),
                    temperature=rng.choice((0.0, 0.7, 1.3)),
                    top_p=rng.choice((0.8, 1.0)),
                    seed=rng.getrandbits(63),
                ),
                deadline_s=rng.choices(_PATIENCE_S, (1, 2, 12))[0],
            )
            visit = _Visit(leaves_after=rng.randint(1, 20) if rng.random() < 0.3 else 1 << 30)
            if rng.random() < 0.05:
                visit.left.set()  # gone before anything began
            self._engine.submit(request, visit, visit.left.is_set)
            never = not visit.ended.wait(_PATIENCE_S[-1] + _SETTLE_S)
            self.endings["never ended" if never else visit.ending] += 1
            self.tokens += visit.tokens


def _requests(build: Path, seed: int) -> list[GenerateRequest]:
    """Pictures and prompts of several lengths to choose from."""
    preparer, rng = Preparer(build), random.Random(seed)
    asker = Asker(preparer.tokenizer, seed)
    return [preparer.request(asker.question(rng.choice(_SIZES), rng.randint(4, 300))) for _ in range(_PROMPTS)]


def _summary(seed: int, clients: list[_Client], samples: list[Sample], running: int, waiting: int) -> Summary:
    endings = sum((client.endings for client in clients), Counter())
    warm = [sample for sample in samples if sample.at_s >= samples[-1].at_s * _WARM_UP_SHARE]
    rss_growth_mib = _growth(warm)
    thread_growth, file_growth = warm[-1].threads - warm[0].threads, warm[-1].files - warm[0].files
    summary = Summary(
        seed=seed,
        seconds=round(samples[-1].at_s, 1),
        requests=endings.total(),
        tokens=sum(client.tokens for client in clients),
        endings=dict(endings),
        running_at_end=running,
        waiting_at_end=waiting,
        rss_mib=round(warm[-1].rss_mib, 1),
        rss_growth_mib=round(rss_growth_mib, 2),
        thread_growth=thread_growth,
        file_growth=file_growth,
        passed=False,
    )
    return replace(summary, passed=_passes(summary))


def _passes(summary: Summary) -> bool:
    ordinary = {"done", "cancelled", "deadline_exceeded"}
    return (
        set(summary.endings) <= ordinary
        and summary.endings.get("done", 0) > 0
        and summary.running_at_end == summary.waiting_at_end == 0
        and summary.rss_growth_mib <= _MOST_GROWTH_MIB
        and summary.thread_growth <= 0
        and summary.file_growth <= 0
    )


def _growth(samples: list[Sample]) -> float:
    """MiB gained over the samples, by the straight line through them."""
    at = np.array([sample.at_s for sample in samples])
    slope = np.polyfit(at, [sample.rss_mib for sample in samples], 1)[0]
    return float(slope * (at[-1] - at[0]))
