"""Random joins, departures, deadlines and seeds: at the end every slot is free and nothing has grown."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.baselines.bare_engine import NEVER, BareEngine, Listener, bare_engine
from bench.load.in_process import Preparer
from bench.load.prompts import QuestionMaker
from bench.records import Say
from gateway.triton.backend import GenerateRequest
from glmserve.engine.metrics import RUNNING, WAITING, Metric
from glmserve.sampling_parameters import Sampling

CLIENTS = 24
"""More than there are slots, so that some always wait."""
_PROMPTS = 40
_SIZES = ((112, 112), (224, 224), (320, 160))
_DEADLINES_S = (0.001, 0.05, 60.0)
_SETTLE_S = 10.0
_SAMPLE_EVERY_S = 0.25
_WARM_UP_SHARE = 1 / 3
_MOST_GROWTH_MIB = 8.0
_PAGE_BYTES = 4096


class Sample(NamedTuple):
    """What this process holds at one moment."""

    at_s: float
    rss_mib: float
    threads: int
    files: int


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

    @property
    def passed(self) -> bool:
        return (
            set(self.endings) <= {"done", "cancelled", "deadline_exceeded", "overloaded"}
            and self.endings.get("done", 0) > 0
            and self.running_at_end == self.waiting_at_end == 0
            and self.rss_growth_mib <= _MOST_GROWTH_MIB
            and self.thread_growth <= 0
            and self.file_growth <= 0
        )


class _Counts:
    """How requests ended, their tokens, and how many run and wait as the engine last said."""

    def __init__(self) -> None:
        self.endings: Counter[str] = Counter()
        self.tokens = 0
        self._gauges: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, ending: str, tokens: int) -> None:
        with self._lock:
            self.endings[ending] += 1
            self.tokens += tokens

    def publish(self, metric: Metric, amount: float) -> None:
        if metric.name in (RUNNING.name, WAITING.name):
            self._gauges[metric.name] = amount

    def settled(self) -> tuple[int, int]:
        """Running and waiting, once both are 0 or when time is up."""
        give_up = time.monotonic() + _SETTLE_S
        while any(self._gauges.values()) and time.monotonic() < give_up:
            time.sleep(_SAMPLE_EVERY_S)
        return int(self._gauges.get(RUNNING.name, 0)), int(self._gauges.get(WAITING.name, 0))


def soak(build: Path, minutes: float, threads: int, seed: int, say: Say) -> Summary:
    """Runs the engine of a build in this process; requests that never end are counted as well."""
    counts, requests = _Counts(), _requests(build, seed)
    began = time.monotonic()
    give_up = began + 60 * minutes
    with bare_engine(build, threads, counts.publish) as engine:
        with ThreadPoolExecutor(CLIENTS, thread_name_prefix="soak client") as pool:
            chances = [random.Random(f"{seed} {number}") for number in range(CLIENTS)]
            clients = [pool.submit(_client, engine, requests, chance, give_up, counts) for chance in chances]
            samples = _samples(began, give_up, counts, say)
            for client in clients:
                client.result()
        running, waiting = counts.settled()
    warm = [sample for sample in samples if sample.at_s >= samples[-1].at_s * _WARM_UP_SHARE]
    return Summary(
        seed=seed,
        seconds=round(samples[-1].at_s, 1),
        requests=counts.endings.total(),
        tokens=counts.tokens,
        endings=dict(counts.endings),
        running_at_end=running,
        waiting_at_end=waiting,
        rss_mib=round(warm[-1].rss_mib, 1),
        rss_growth_mib=round(_growth_mib(warm), 2),
        thread_growth=warm[-1].threads - warm[0].threads,
        file_growth=warm[-1].files - warm[0].files,
    )


def _client(
    engine: BareEngine, requests: Sequence[GenerateRequest], chance: random.Random, give_up: float, counts: _Counts
) -> None:
    """Sends one request after another, and leaves some of them early."""
    while time.monotonic() < give_up:
        request = replace(
            chance.choice(requests),
            sampling=Sampling(
                max_tokens=chance.randint(1, 48),
                temperature=chance.choice((0.0, 0.7, 1.3)),
                top_p=chance.choice((0.8, 1.0)),
                seed=chance.getrandbits(63),
            ),
            deadline_s=chance.choices(_DEADLINES_S, (1, 2, 12))[0],
        )
        listener = Listener(mark=chance.randint(1, 20) if chance.random() < 0.3 else NEVER)  # there it leaves
        if chance.random() < 0.05:
            listener.reached.set()  # it leaves before anything begins
        engine.submit(request, listener, listener.reached.is_set)
        has_ended = listener.ended.wait(_DEADLINES_S[-1] + _SETTLE_S)
        counts.add(listener.ending if has_ended else "never ended", len(listener.times))


def _samples(began: float, give_up: float, counts: _Counts, say: Say) -> list[Sample]:
    """Samples until it is time to give up, and progress twenty times."""
    samples: list[Sample] = []
    next_word = began
    while (now := time.monotonic()) < give_up:
        rss_mib = int(Path("/proc/self/statm").read_text("utf-8").split()[1]) * _PAGE_BYTES / 1024**2
        files = len(list(Path("/proc/self/fd").iterdir()))
        samples.append(Sample(now - began, rss_mib, threading.active_count(), files))
        if now >= next_word:
            next_word += max(5.0, (give_up - began) / 20)
            say(f"{counts.endings.total()} requests, {rss_mib:.0f} MiB")
        time.sleep(_SAMPLE_EVERY_S)
    return samples


def _requests(build: Path, seed: int) -> list[GenerateRequest]:
    """Images and prompts of several lengths to choose from."""
    preparer, chance = Preparer(build), random.Random(seed)
    maker = QuestionMaker(preparer.tokenizer, seed)
    return [preparer.request(maker.question(chance.choice(_SIZES), chance.randint(4, 300))) for _ in range(_PROMPTS)]


def _growth_mib(samples: Sequence[Sample]) -> float:
    """Growth over the samples, by the straight line through them."""
    at = np.array([sample.at_s for sample in samples])
    slope = np.polyfit(at, [sample.rss_mib for sample in samples], 1)[0]
    return float(slope * (at[-1] - at[0]))
