"""The whole service at 70 % of what it can do: whether the memory, threads or files of its parts grow.

Images and texts, whole and streamed, clients that leave, and requests that are wrong arrive at random moments.
"""

from __future__ import annotations

import base64
import http.client
import json
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Semaphore

import numpy as np
from numpy.typing import NDArray

from bench.checkpoints.builds import CACHE
from bench.load.closed_loop import VISION_PATH, send
from bench.load.posted import posted
from bench.load.prompts import SQUARE, Question, QuestionMaker
from bench.measure.soak import WARM_UP_SHARE, Endings, growth_faults
from bench.records import Say
from bench.servers.fleet import UNLIMITED, Fleet, running
from bench.servers.processes import engine_variables
from bench.usage import descendants, open_files, own_bytes, threads_of
from glmserve.build.manifest import CHECKPOINT_FOLDER
from glmserve.model.tokenizer import Tokenizer

LOAD = 0.7
LOGS = CACHE / "soak"
"""The gateway's log of the last run; it says what is behind a request that ended wrongly."""
_CROWD, _CROWD_S, _RUN_UP_S = 24, 15.0, 3.0
_IMAGES = 100
"""More than the engine's cache of images holds, so that each is encoded again and again."""
_SIZES = (SQUARE, (112, 112), (320, 160), (640, 480))
_MOST_AT_ONCE = 64
_LEAVES_AFTER = 3  # events of a stream
_MOST_BURSTS = 10
_SAMPLE_EVERY_S = 5.0
_LEAST_SAMPLES = 8
"""Of a run of seconds."""
_SETTLE_S = 5.0
_CHAT_PATH = "/v1/chat/completions"
RIGHT = {"answered", "streamed", "text", "by schema", "left", "refused: 400"}
_MIB = 1 << 20
_HOUR_S = 3600.0
Request = Callable[[str, random.Random], str]
"""Sends one request to a service and says how it ended."""


class NothingAnswered(Exception):
    """The service ended no request as it must while its capacity was looked for; the message says how they ended."""


@dataclass(frozen=True)
class Growth:
    """One part of the service; growth is from the end of the warm-up on, of memory along a fitted line, of threads and
    files from one moment without requests to the other."""

    own_mib: float
    own_growth_mib: float
    own_mib_per_hour: float
    thread_growth: int
    file_growth: int


@dataclass(frozen=True)
class ServiceSummary:
    """How a soak ended; `endings` counts requests by what they were and how they ended."""

    seed: int
    seconds: float
    capacity_per_s: float
    load: float
    requests: int
    endings: dict[str, int]
    parts: dict[str, Growth]

    @property
    def faults(self) -> list[str]:
        """Why it has not passed, a sentence each."""
        faults = [f"{self.endings[how]} requests ended wrongly: {how}." for how in sorted(set(self.endings) - RIGHT)]
        if any(how.endswith(": 503") for how in self.endings):
            faults.append(f"503: at {self.load:.0%} nobody is refused, unless other programs take the machine.")
        faults += [f"No request ended so: {how}. Let it run longer." for how in sorted(RIGHT - set(self.endings))]
        mib = sum(max(0.0, part.own_growth_mib) for part in self.parts.values())  # no part makes up for another
        faults += growth_faults(mib, self.seconds)
        for name, part in self.parts.items():
            if part.thread_growth > 0:
                faults.append(f"{name} has {part.thread_growth} more threads than after the warm-up.")
            if part.file_growth > 0:
                faults.append(f"{name} has {part.file_growth} more open files than after the warm-up.")
        return faults

    @property
    def passed(self) -> bool:
        return not self.faults


def soak(build: Path, minutes: float, threads: int, seed: int, say: Say) -> ServiceSummary:
    """Runs Triton and the gateway on a build, finds what they can do, and lets that share of it arrive; raises
    NothingAnswered."""
    ended = Endings()
    request = _any_request(QuestionMaker(Tokenizer.read(build / CHECKPOINT_FOLDER), seed))
    variables = engine_variables(threads) | UNLIMITED
    with running(Fleet(LOGS, build, 1, 1, variables)) as fleet:
        capacity = _capacity(fleet.url, request)
        say(f"{capacity:.1f} requests a second at most; now {LOAD:.0%} of it")
        pids = {"Triton": fleet.tritons[0].pid or 0, "gateway": fleet.gateways[0].pid or 0}
        load = _Load(fleet.url, request, LOAD * capacity, random.Random(seed), ended, pids, say)
        load.fill()
        warm_up = load.arrive(60 * minutes * WARM_UP_SHARE)
        say("warmed up; from here on growth counts")
        warm = np.vstack([warm_up[-1:], load.arrive(60 * minutes * (1 - WARM_UP_SHARE))])
    return ServiceSummary(
        seed=seed,
        seconds=round(float(warm[-1, 0]), 1),
        capacity_per_s=round(capacity, 1),
        load=LOAD,
        requests=ended.counts.total(),
        endings=dict(ended.counts),
        parts={part: growth(warm[:, 0], warm[:, 1 + 3 * i : 4 + 3 * i]) for i, part in enumerate(pids)},
    )


def growth(at_s: NDArray[np.float64], measured: NDArray[np.float64]) -> Growth:
    """`measured` are resident MiB, threads and files at these moments, the first and the last without requests; of
    threads and files the least of a tenth counts, as both come and go with requests."""
    mib, *counts = measured.T
    a_second = float(np.polyfit(at_s, mib, 1)[0])
    tenth = max(1, len(at_s) // 10)
    threads, files = (int(each[-tenth:].min() - each[:tenth].min()) for each in counts)
    return Growth(
        own_mib=round(float(mib[-1]), 1),
        own_growth_mib=round(a_second * float(at_s[-1] - at_s[0]), 2),
        own_mib_per_hour=round(a_second * _HOUR_S, 2),
        thread_growth=threads,
        file_growth=files,
    )


def _capacity(url: str, request: Request) -> float:
    """Requests a second that end as they must, of a crowd of which each asks again when it is answered."""
    until, ended = time.monotonic() + _RUN_UP_S + _CROWD_S, Endings()

    def ask_again(number: int) -> None:
        chance = random.Random(number)
        while (began := time.monotonic()) < until:
            how = request(url, chance)
            if began >= until - _CROWD_S or how not in RIGHT:
                ended.add(how, 0)

    with ThreadPoolExecutor(_CROWD) as pool:
        list(pool.map(ask_again, range(_CROWD)))
    right = sum(number for how, number in ended.counts.items() if how in RIGHT)
    if not right:
        how = ", ".join(f"{number} {how}" for how, number in sorted(ended.counts.items())) or "none at all"
        raise NothingAnswered(
            f"{_CROWD} clients got nothing right in {_CROWD_S:g} s after {_RUN_UP_S:g} s. Endings: {how}. "
            "This machine is too slow for the model: give --checkpoint a smaller one."
        )
    return right / _CROWD_S


@dataclass(frozen=True)
class _Load:
    """Requests at random moments, and what the service takes meanwhile."""

    url: str
    request: Request
    per_s: float
    chance: random.Random
    ended: Endings
    pids: Mapping[str, int]
    say: Say
    began: float = field(default_factory=time.monotonic)
    room: Semaphore = field(default_factory=lambda: Semaphore(_MOST_AT_ONCE))

    def fill(self) -> None:
        """As many at once as may ever be, until that starts no thread any more: pools of threads never shrink, and
        later, by chance, more requests may meet than have met before."""
        threads = 0
        for _ in range(_MOST_BURSTS):
            with ThreadPoolExecutor(_MOST_AT_ONCE) as pool:
                list(pool.map(lambda number: self.request(self.url, random.Random(number)), range(_MOST_AT_ONCE)))
            before, threads = threads, sum(_taken(pid)[1] for pid in self.pids.values())
            if threads <= before:
                return

    def arrive(self, for_s: float) -> NDArray[np.float64]:
        """The samples [moments, 1 + 3 for each part]: seconds since the start, and the MiB, threads and files of each
        part. The last one is taken when no request is under way."""
        samples, began = list[list[float]](), time.monotonic()
        due = next_word = next_sample = began
        every_s = min(_SAMPLE_EVERY_S, for_s / _LEAST_SAMPLES)
        with ThreadPoolExecutor(_MOST_AT_ONCE) as pool:
            while (now := time.monotonic()) < began + for_s:
                if now >= next_sample:
                    next_sample = now + every_s
                    samples.append(self._sample())
                if now >= next_word:
                    next_word = now + max(10.0, for_s / 20)
                    mib = " and ".join(f"{part} {samples[-1][1 + 3 * i]:.0f}" for i, part in enumerate(self.pids))
                    self.say(f"{self.ended.counts.total()} requests; MiB: {mib}")
                if now < due:
                    time.sleep(max(0.0, min(due, next_sample, began + for_s) - time.monotonic()))
                    continue
                due += self.chance.expovariate(self.per_s)
                own = random.Random(self.chance.getrandbits(64))
                if self.room.acquire(timeout=_SAMPLE_EVERY_S):
                    pool.submit(self._send_one, own)
                else:
                    self.ended.add(f"not sent: {_MOST_AT_ONCE} under way", 0)
        time.sleep(_SETTLE_S)  # sockets and threads of the last ones
        samples.append(self._sample())
        return np.array(samples)

    def _send_one(self, own: random.Random) -> None:
        try:
            how = self.request(self.url, own)
        except Exception as error:  # the thread's outer edge: what is lost here would look like a request never sent
            how = f"failed: {type(error).__name__}"
        finally:
            self.room.release()
        self.ended.add(how, 0)

    def _sample(self) -> list[float]:
        return [time.monotonic() - self.began, *(value for pid in self.pids.values() for value in _taken(pid))]


def _taken(pid: int) -> tuple[float, int, int]:
    """MiB, threads and open files of a process and all that it has started."""
    all_of_it = {pid} | descendants(pid)
    return own_bytes(all_of_it) / _MIB, sum(map(threads_of, all_of_it)), sum(map(open_files, all_of_it))


def _any_request(maker: QuestionMaker) -> Request:
    """One of the kinds below, by chance."""
    questions = [maker.question(_SIZES[number % len(_SIZES)], 8 + number) for number in range(_IMAGES)]
    kinds: list[tuple[int, Request]] = [
        (8, partial(_answered, questions)),
        (4, partial(_streamed, questions)),
        (3, _text),
        (2, partial(_left, questions)),
        (1, _by_schema),
        (1, partial(_broken_image, questions)),
        (1, _wrong_json),
    ]
    weights, requests = zip(*kinds, strict=True)
    return lambda url, chance: chance.choices(requests, weights)[0](url, chance)


def _answered(questions: list[Question], url: str, chance: random.Random) -> str:
    how = send(url + VISION_PATH, chance.choice(questions).body(chance.randint(1, 24))).how
    return "answered" if how == "done" else f"answered: {how}"


def _streamed(questions: list[Question], url: str, chance: random.Random) -> str:
    how = send(url + VISION_PATH, chance.choice(questions).body(chance.randint(1, 24), stream=True)).how
    return "streamed" if how == "done" else f"streamed: {how}"


def _left(questions: list[Question], url: str, chance: random.Random) -> str:
    with (
        suppress(OSError, http.client.HTTPException, ValueError),
        posted(url + VISION_PATH, chance.choice(questions).body(48, stream=True)) as reply,
    ):
        for _, event in zip(range(chance.randint(0, _LEAVES_AFTER)), reply, strict=False):
            if reply.status == http.HTTPStatus.OK and "error" in event:
                return "left: error event"
        return "left" if reply.status == http.HTTPStatus.OK else f"left: {reply.status}"
    return "left: broken"


def _text(url: str, chance: random.Random) -> str:
    asked = {"messages": [{"role": "user", "content": f"How many is {chance.random()}?"}], "max_tokens": 16}
    return "text" if (status := _status(url + _CHAT_PATH, asked)) == http.HTTPStatus.OK else f"text: {status}"


def _by_schema(url: str, chance: random.Random) -> str:
    """Every one brings a grammar of its own."""
    schema = {"type": "object", "properties": {f"n{chance.getrandbits(30)}": {"type": "integer"}}}
    asked = {
        "messages": [{"role": "user", "content": "Count."}],
        "max_tokens": 16,
        "response_format": {"type": "json_schema", "json_schema": {"name": "count", "schema": schema}},
    }
    status = _status(url + _CHAT_PATH, asked)
    return "by schema" if status == http.HTTPStatus.OK else f"by schema: {status}"


def _broken_image(questions: list[Question], url: str, chance: random.Random) -> str:
    file = chance.choice(questions).image_file
    half = base64.b64encode(file[: chance.randrange(len(file) // 2)]).decode()
    return f"refused: {_status(url + VISION_PATH, {'image': half, 'prompt': '?'})}"


def _wrong_json(url: str, chance: random.Random) -> str:
    return f"refused: {_status(url + _CHAT_PATH, {'messages': [{'role': chance.random()}]})}"


def _status(url: str, asked: dict[str, object]) -> int:
    """0 where the connection breaks, or what comes is no JSON."""
    with suppress(OSError, http.client.HTTPException, ValueError), posted(url, json.dumps(asked).encode()) as reply:
        for _ in reply:
            pass
        return reply.status
    return 0
