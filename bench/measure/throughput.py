"""Tokens a second and time to the first token, beside the rival's: the same questions, round by round in turn."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import mean

from bench.checkpoints.builds import PRECISIONS, build_of, checkpoint_of
from bench.checkpoints.synthetic import FULL
from bench.load.closed_loop import Round, ask, at_once, run_round
from bench.load.in_process import Preparer
from bench.load.prompts import Asker, Question
from bench.records import Row, Spread
from bench.servers.processes import rival_on, service_on

QUESTIONS = {1: 2, 4: 4, 16: 16}
"""Questions a round for each number of clients; one client asks them one after another."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Ours:
    """Our service in one precision, asked over HTTP: whole answers for throughput, streams for first tokens."""

    precision: str
    url: str

    def run_round(self, questions: list[Question], clients: int) -> Round:
        return run_round(self.url, questions, clients)

    def first_tokens_s(self, questions: list[Question], clients: int) -> list[float]:
        """Seconds to the first token of each question, asked by this many clients at once."""
        return at_once(lambda question: ask(self.url, question, stream=True).first_token_s, questions, clients)


@dataclass
class _Compared:
    """What the rounds of one precision and one number of clients gave, ours over the rival's."""

    tokens_per_s: list[float] = field(default_factory=list)
    first_token: list[float] = field(default_factory=list)
    answers: int = 0
    identical: int = 0

    def add(self, rival: Round, ours: Round, first_tokens_s: list[float]) -> None:
        self.tokens_per_s.append(ours.tokens_per_s / rival.tokens_per_s)
        self.first_token.append(mean(first_tokens_s) / mean(answer.first_token_s for answer in rival.answers))
        self.answers += len(ours.answers)
        self.identical += sum(a.text == b.text for a, b in zip(rival.answers, ours.answers, strict=True))

    def row(self, clients: int, precision: str, threads: int) -> Row:
        return {
            "clients": clients,
            "precision": precision,
            **Spread.of(self.tokens_per_s).fields("tokens_per_s_ratio"),
            **Spread.of(self.first_token).fields("ttft_ratio"),
            "identical_tokens": self.identical == self.answers,
            "identical_answers": [self.identical, self.answers],
            "rounds": len(self.tokens_per_s),
            "threads": threads,
        }


def measure(threads: int, rounds: int, say: Say) -> list[Row]:
    """A row for each number of clients and each precision; only one server computes at a time."""
    checkpoint = checkpoint_of(FULL, say)
    builds = {precision: build_of(checkpoint, precision, say) for precision in PRECISIONS}
    with ExitStack() as stack:
        say("Starting the rival and our service ...")
        rival = stack.enter_context(rival_on(checkpoint, threads))
        ours = []
        for precision, build in builds.items():
            ours.append(Ours(precision, stack.enter_context(service_on(build, threads))))
        asker = Asker(Preparer(next(iter(builds.values()))).tokenizer, seed=1)
        _warm_up(rival, ours, asker)
        rows = []
        for clients in QUESTIONS:
            rows += _compare(clients, threads, rounds, rival, ours, asker, say)
        return rows


def _compare(
    clients: int, threads: int, rounds: int, rival: str, ours: list[Ours], asker: Asker, say: Say
) -> list[Row]:
    compared = {service.precision: _Compared() for service in ours}
    for number in range(rounds):
        questions = [asker.question() for _ in range(QUESTIONS[clients])]
        beaten = run_round(rival, questions, clients)
        say(f"{clients} clients, round {number + 1} of {rounds}: the rival took {beaten.seconds:.1f} s")
        for service in ours:
            answered = service.run_round(questions, clients)
            again = [asker.question() for _ in questions]  # the first questions are in the service's caches by now
            found = compared[service.precision]
            found.add(beaten, answered, service.first_tokens_s(again, clients))
            say(
                f"  {service.precision}: {found.tokens_per_s[-1]:.2f} times its tokens a second, "
                f"first token in {found.first_token[-1]:.3f} of its time, "
                f"{found.identical} of {found.answers} answers identical"
            )
    return [compared[service.precision].row(clients, service.precision, threads) for service in ours]


def _warm_up(rival: str, ours: list[Ours], asker: Asker) -> None:
    question = asker.question()
    ask(rival, question)
    for service in ours:
        ask(service.url, question)
