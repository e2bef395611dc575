"""Tokens a second and time to the first token, beside transformers in a Flask script: the same questions, in turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from statistics import mean

from bench.checkpoints.builds import PRECISIONS, checkpoint_of
from bench.checkpoints.synthetic import FULL
from bench.harness import Run
from bench.load.closed_loop import ask, at_once, run_round
from bench.load.in_process import Preparer
from bench.load.prompts import QuestionMaker
from bench.records import Row, Samples
from bench.servers.processes import flask_baseline, service_on

QUESTIONS = {1: 2, 4: 4, 16: 16}
"""Questions a round for each number of clients; one client asks them one after another."""


def measure(run: Run) -> list[Row]:
    """A row for each number of clients and each precision; only one server computes at a time."""
    builds = {precision: run.build(FULL, precision) for precision in PRECISIONS}
    maker = QuestionMaker(Preparer(next(iter(builds.values()))).tokenizer, seed=1)
    with ExitStack() as stack:
        run.say("Starting the baseline and our service ...")
        baseline = stack.enter_context(flask_baseline(checkpoint_of(FULL, run.say), run.threads))
        services = {name: stack.enter_context(service_on(build, run.threads)) for name, build in builds.items()}
        warm_up = maker.question()
        for url in (baseline, *services.values()):
            ask(url, warm_up)
        return [row for clients in QUESTIONS for row in _compare(clients, baseline, services, maker, run)]


def _compare(clients: int, baseline: str, services: Mapping[str, str], maker: QuestionMaker, run: Run) -> list[Row]:
    """One row a service; ratios are ours over the baseline's."""
    samples = {precision: Samples() for precision in services}
    identical: Counter[str] = Counter()
    total = run.rounds * QUESTIONS[clients]
    for number in range(run.rounds):
        questions = [maker.question() for _ in range(QUESTIONS[clients])]
        theirs = run_round(baseline, questions, clients)
        for precision, url in services.items():
            ours = run_round(url, questions, clients)
            first_tokens_s = _first_tokens_s(url, clients, maker)
            samples[precision].add(
                {
                    "tokens_per_s_ratio": ours.tokens_per_s / theirs.tokens_per_s,
                    "ttft_ratio": mean(first_tokens_s) / mean(answer.first_token_s for answer in theirs.answers),
                }
            )
            pairs = zip(theirs.answers, ours.answers, strict=True)
            identical[precision] += sum(one.text == other.text for one, other in pairs)
            run.say(f"{clients} clients, {precision}, round {number + 1} of {run.rounds}: {samples[precision]}")
    return [
        {
            "clients": clients,
            "precision": precision,
            **found.row(),
            "identical_tokens": identical[precision] == total,
            "identical_answers": [identical[precision], total],
            **run.row(),
        }
        for precision, found in samples.items()
    ]


def _first_tokens_s(url: str, clients: int, maker: QuestionMaker) -> list[float]:
    """Seconds to the first token of streamed answers; the questions are new, for earlier ones are in the caches."""
    questions = [maker.question() for _ in range(QUESTIONS[clients])]
    return at_once(lambda question: ask(url, question, stream=True).first_token_s, questions, clients)
