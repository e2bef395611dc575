"""The open loop: requests that arrive at random moments, whether earlier ones have been answered or not."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from bench.load.closed_loop import Reply

_MOST_AT_ONCE = 512
_TIMEOUT_S = 60.0


def arrive(ask: Callable[[int], Reply], per_s: float, for_s: float, seed: int) -> list[Reply]:
    """What became of requests that arrive at this mean rate (Poisson); `ask` is told each one's number.

    A request begins when it arrives: if all threads are taken, its wait counts.
    """
    chance, due, found = random.Random(seed), time.monotonic(), list[Future[Reply]]()
    end = due + for_s
    with ThreadPoolExecutor(_MOST_AT_ONCE, thread_name_prefix="arrival") as pool:
        while (due := due + chance.expovariate(per_s)) < end:
            time.sleep(max(0.0, due - time.monotonic()))
            found.append(pool.submit(_begun_at, due, ask, len(found)))
        return [future.result(_TIMEOUT_S) for future in found]


def _begun_at(due: float, ask: Callable[[int], Reply], number: int) -> Reply:
    reply = ask(number)
    reply.began = due
    return reply
