"""Up to a thousand replicas in simulated time: the gateways' load balancer and the engine's scheduler."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Generator
from dataclasses import dataclass

from bench.records import Row, Say
from bench.simulation.capacity import requests_per_s
from bench.simulation.replica import Machine, Replica, Visit
from bench.simulation.step_times import StepTimes
from gateway.triton.backend import Chunk, GenerateRequest
from gateway.triton.load_balancer import LoadBalancer
from gateway.triton.load_balancer import Replica as Choice
from glmserve.errors import BackendDown

REPLICAS = (1, 10, 100, 1000)
LOADS = (0.5, 0.7, 0.8, 0.9, 1.0, 1.2)
"""Offered load as shares of what the replicas can do."""
MACHINE = Machine(
    StepTimes(decode_s=0.02, row_s=0.0003, prefill_s=0.02, token_s=0.0001), slots=16, min_chunk_tokens=256
)
"""Roughly a bf16 model on a card that reads its weights in 20 ms."""
_REPLICAS_A_GATEWAY = 8
_WARM_UP_SHARE = 0.4
_REPLICA_SECONDS = 10_000  # of one run, so that a thousand replicas take minutes and not hours


@dataclass(frozen=True)
class Workload:
    """The requests: tokens of prompt and answer, each between two bounds, and how long a client waits."""

    prompt_tokens: tuple[int, int] = (200, 800)
    answer_tokens: tuple[int, int] = (32, 160)
    deadline_s: float = 30.0

    def visit(self, chance: random.Random, now: float) -> Visit:
        prompt, answer = chance.randint(*self.prompt_tokens), chance.randint(*self.answer_tokens)
        return Visit(now, prompt, answer, now + self.deadline_s)


@dataclass(frozen=True)
class Outcome:
    """How visits ended that arrived after the warm-up, and the tokens a second since then."""

    visits: list[Visit]
    tokens_per_s: float

    def share(self, ending: str) -> float:
        return sum(visit.ending == ending for visit in self.visits) / max(1, len(self.visits))

    def first_token_s(self, quantile: float) -> float:
        """Of those that were answered; 0 when none was."""
        times = sorted(visit.first_token_at - visit.arrived for visit in self.visits if visit.ending == "done")
        return times[min(len(times) - 1, int(quantile * len(times)))] if times else 0.0


def capacity_per_s(machine: Machine, workload: Workload) -> float:
    """Requests a second of one replica whose slots are always full."""
    prompt, answer = sum(workload.prompt_tokens) // 2, sum(workload.answer_tokens) // 2
    return requests_per_s(machine.times, machine.slots, prompt, answer, machine.image_s)


def simulate(
    machine: Machine, workload: Workload, replicas: int, rate_per_s: float, seconds: float, seed: int = 0
) -> Outcome:
    """Random arrivals at `rate_per_s` in all, for so many seconds of simulated time."""
    chance, fleet = random.Random(seed), [Replica(machine) for _ in range(replicas)]
    urls = {f"grpc://10.0.{number // 250}.{number % 250 + 1}:8001": one for number, one in enumerate(fleet)}
    gateways = [  # each knows only its own requests
        LoadBalancer(",".join(urls), lambda _url: _Nobody(), shuffle=chance.shuffle)
        for _ in range(_gateways_for(replicas))
    ]
    order = itertools.count()  # so that the heap never compares replicas
    events: list[tuple[float, int, Replica | None]] = [(chance.expovariate(rate_per_s), next(order), None)]
    held: dict[Visit, tuple[LoadBalancer, Choice]] = {}
    visits: list[Visit] = []
    warm_at, tokens_before = seconds * _WARM_UP_SHARE, -1
    while events[0][0] < seconds:
        now, _, replica = heapq.heappop(events)
        if now >= warm_at and tokens_before < 0:
            tokens_before = sum(one.tokens for one in fleet)
        if replica is None:
            heapq.heappush(events, (now + chance.expovariate(rate_per_s), next(order), None))
            visit, gateway = workload.visit(chance, now), chance.choice(gateways)
            choice = gateway.take()
            held[visit] = gateway, choice
            replica = urls[choice.url]
            replica.arrive(visit, now)
        else:
            replica.step(now)
            replica.is_stepping = False
        for ended in replica.ended:
            gateway, choice = held.pop(ended)
            gateway.give_back(choice)
            if ended.arrived >= warm_at:
                visits.append(ended)
        replica.ended.clear()
        due = replica.next_step_at()
        if due is not None and not replica.is_stepping:
            replica.is_stepping = True
            heapq.heappush(events, (max(due, now), next(order), replica))
    tokens = sum(one.tokens for one in fleet) - tokens_before
    return Outcome(visits, tokens / (seconds - warm_at))


def measure(seconds: float, most: int, say: Say) -> list[Row]:
    """A row for each number of replicas up to `most` and each load."""
    workload, rows = Workload(), []
    for replicas, load in itertools.product([count for count in REPLICAS if count <= most], LOADS):
        rate = load * replicas * capacity_per_s(MACHINE, workload)
        simulated_s = min(seconds, _REPLICA_SECONDS / replicas)
        outcome = simulate(MACHINE, workload, replicas, rate, simulated_s)
        row = {
            "replicas": replicas,
            "gateways": _gateways_for(replicas),
            "load": load,
            "seconds": simulated_s,
            "requests": len(outcome.visits),
            "refused": round(outcome.share("refused"), 4),
            "late": round(outcome.share("late"), 4),
            "first_token_p50_s": round(outcome.first_token_s(0.5), 3),
            "first_token_p95_s": round(outcome.first_token_s(0.95), 3),
            "tokens_per_s": round(outcome.tokens_per_s, 1),
        }
        rows.append(row)
        say(f"{replicas} replicas at {load:.0%}: {row}")
    return rows


def _gateways_for(replicas: int) -> int:
    """How many gateways so many replicas would have."""
    return max(2, replicas // _REPLICAS_A_GATEWAY)


class _Nobody:
    """The backend of a replica that is only chosen, never called."""

    def generate(self, _request: GenerateRequest) -> Generator[Chunk]:
        raise BackendDown

    def models_ready(self) -> bool:
        return True

    def close(self) -> None: ...
