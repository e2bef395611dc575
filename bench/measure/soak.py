"""The bare engine, always full: after random joins, departures, deadlines and seeds every slot is free and nothing has
grown."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

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
_AFTER_REFUSAL_S = 0.05
_SAMPLE_EVERY_S = 0.25
WARM_UP_SHARE = 1 / 3
RIGHT = {"done", "cancelled", "deadline_exceeded", "overloaded"}
MOST_GROWTH_MIB = 8.0
_TELLING_S = 600.0
_MIB_A_PAGE = 4096 / 1024**2


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
    def faults(self) -> list[str]:
        """Why it has not passed, a sentence each."""
        faults = [f"{self.endings[how]} requests ended wrongly: {how}." for how in sorted(set(self.endings) - RIGHT)]
        if not self.endings.get("done"):
            faults.append("No request was answered whole.")
        if self.running_at_end or self.waiting_at_end:
            faults.append(f"{self.running_at_end} requests still run at the end, and {self.waiting_at_end} wait.")
        faults += growth_faults(self.rss_growth_mib, self.seconds)
        if self.thread_growth > 0:
            faults.append(f"There are {self.thread_growth} more threads than after the warm-up.")
        if self.file_growth > 0:
            faults.append(f"There are {self.file_growth} more open files than after the warm-up.")
        return faults

    @property
    def passed(self) -> bool:
        return not self.faults


def growth_faults(mib: float, seconds: float) -> list[str]:
    """A sentence where a run of so many seconds grew by more than it may."""
    if mib <= MOST_GROWTH_MIB:
        return []
    short = " So short a run does not tell growth from warming up." if seconds < _TELLING_S else ""
    return [f"Memory grew by {mib:.1f} MiB after the warm-up; {MOST_GROWTH_MIB:g} MiB may be.{short}"]


class Endings:
    """How requests ended, counted on any thread: a list of them would grow as a leak does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts = Counter[str]()
        self.tokens = 0

    def add(self, how: str, tokens: int) -> None:
        with self._lock:
            self.counts[how] += 1
            self.tokens += tokens


def soak(build: Path, minutes: float, threads: int, seed: int, say: Say) -> Summary:
    """Runs the engine of a build in this process; requests that never end are counted as well."""
    gauges, ended, requests = {RUNNING: 0.0, WAITING: 0.0}, Endings(), _requests(build, seed)

    def publish(metric: Metric, amount: float) -> None:
        if metric in gauges:
            gauges[metric] = amount

    began = time.monotonic()
    give_up = began + 60 * minutes
    with bare_engine(build, threads, publish) as engine:
        with ThreadPoolExecutor(CLIENTS, thread_name_prefix="soak client") as pool:
            chances = [random.Random(f"{seed} {number}") for number in range(CLIENTS)]
            clients = [pool.submit(_client, engine, requests, chance, give_up, ended) for chance in chances]
            samples = _samples(began, give_up, ended, say)
            for client in clients:
                client.result()
        settled_by = time.monotonic() + _SETTLE_S
        while any(gauges.values()) and time.monotonic() < settled_by:
            time.sleep(_SAMPLE_EVERY_S)
    warm = samples[samples[:, 0] >= samples[-1, 0] * WARM_UP_SHARE]
    at_s, rss_mib, threads_then, files_then = warm.T
    return Summary(
        seed=seed,
        seconds=round(float(at_s[-1]), 1),
        requests=ended.counts.total(),
        tokens=ended.tokens,
        endings=dict(ended.counts),
        running_at_end=int(gauges[RUNNING]),
        waiting_at_end=int(gauges[WAITING]),
        rss_mib=round(float(rss_mib[-1]), 1),
        rss_growth_mib=round(float(np.polyfit(at_s, rss_mib, 1)[0] * (at_s[-1] - at_s[0])), 2),
        thread_growth=int(threads_then[-1] - threads_then[0]),
        file_growth=int(files_then[-1] - files_then[0]),
    )


def _client(
    engine: BareEngine,
    requests: Sequence[GenerateRequest],
    chance: random.Random,
    give_up: float,
    ended: Endings,
) -> None:
    """Sends one request after another, and leaves some of them early."""
    while time.monotonic() < give_up:
        sampling = Sampling(
            max_tokens=chance.randint(1, 48),
            temperature=chance.choice((0.0, 0.7, 1.3)),
            top_p=chance.choice((0.8, 1.0)),
            seed=chance.getrandbits(63),
        )
        deadline_s = chance.choices(_DEADLINES_S, (1, 2, 12))[0]
        listener = Listener(mark=chance.randint(1, 20) if chance.random() < 0.3 else NEVER)  # there it leaves
        if chance.random() < 0.05:
            listener.reached.set()  # it leaves before anything begins
        request = replace(chance.choice(requests), sampling=sampling, deadline_s=deadline_s)
        engine.submit(request, listener, listener.reached.is_set)
        has_ended = listener.ended.wait(_DEADLINES_S[-1] + _SETTLE_S)
        ending = listener.ending if has_ended else "never ended"
        if ending == "overloaded":  # right for who has no time to queue, and for nobody else
            ending = "refused with time left" if deadline_s == _DEADLINES_S[-1] else ending
            time.sleep(_AFTER_REFUSAL_S)
        ended.add(ending, len(listener.times))


def _samples(began: float, give_up: float, ended: Endings, say: Say) -> np.ndarray:
    """Until it is time to give up: the seconds passed, and this process's resident MiB, threads and open files.

    The array is filled before anything is measured, so that it does not grow what it measures.
    """
    samples = np.ones((2 + int((give_up - began) / _SAMPLE_EVERY_S), 4))
    taken, next_word = 0, began
    while (now := time.monotonic()) < give_up:
        rss_mib = int(Path("/proc/self/statm").read_text("utf-8").split()[1]) * _MIB_A_PAGE
        files = len(list(Path("/proc/self/fd").iterdir()))
        samples[taken] = now - began, rss_mib, threading.active_count(), files
        taken += 1
        if now >= next_word:
            next_word += max(5.0, (give_up - began) / 20)
            say(f"{ended.counts.total()} requests, {rss_mib:.0f} MiB")
        time.sleep(_SAMPLE_EVERY_S)
    return samples[:taken]


def _requests(build: Path, seed: int) -> list[GenerateRequest]:
    """Images and prompts of several lengths to choose from."""
    preparer, chance = Preparer(build), random.Random(seed)
    maker = QuestionMaker(preparer.tokenizer, seed)
    return [preparer.request(maker.question(chance.choice(_SIZES), chance.randint(4, 300))) for _ in range(_PROMPTS)]
