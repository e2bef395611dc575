"""Tokens a second and time to the first token, beside transformers in a Flask script: the same questions, in turn."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from statistics import mean

from bench.checkpoints.builds import PRECISIONS, checkpoint_of
from bench.checkpoints.synthetic import FULL
from bench.harness import Run, spreads
from bench.load.closed_loop import ask, at_once, run_round
from bench.load.in_process import Preparer
from bench.load.prompts import QuestionMaker
from bench.records import Row
from bench.servers.fleet import service_on
from bench.servers.processes import flask_baseline

QUESTIONS = {1: 2, 4: 4, 16: 16}
"""Questions a round for each number of clients; one client asks them one after another."""


def measure(run: Run) -> list[Row]:
    """A row for each number of clients and each precision; only one server computes at a time."""
    builds = {precision: run.build(FULL, precision) for precision in PRECISIONS}
    maker = QuestionMaker(Preparer(builds[PRECISIONS[0]]).tokenizer, seed=1)
    with ExitStack() as stack:
        run.say("Starting the baseline and our service ...")
        baseline = stack.enter_context(flask_baseline(checkpoint_of(FULL, run.say), run.threads))
        services = {name: stack.enter_context(service_on(build, run.threads)) for name, build in builds.items()}
        warm_up = maker.question()
        for url in (baseline, *services.values()):
            ask(url, warm_up)
        return [row for clients in QUESTIONS for row in _compare(clients, baseline, services, maker, run)]


def _compare(clients: int, baseline: str, services: Mapping[str, str], maker: QuestionMaker, run: Run) -> list[Row]:
    """One row a service; ratios are ours over the baseline's. First tokens are those of new questions, since earlier
    ones are in the caches."""
    found, identical = defaultdict[str, list[Row]](list), Counter[str]()
    for number in range(run.rounds):
        questions = maker.questions(QUESTIONS[clients])
        theirs = run_round(baseline, questions, clients)
        their_first_s = mean(answer.first_token_s for answer in theirs.answers)
        for precision, url in services.items():
            ours = run_round(url, questions, clients)
            new = maker.questions(QUESTIONS[clients])
            streamed = at_once(partial(ask, url, stream=True), new, clients)
            ratios = {
                "tokens_per_s_ratio": ours.tokens_per_s / theirs.tokens_per_s,
                "ttft_ratio": mean(answer.first_token_s for answer in streamed) / their_first_s,
            }
            found[precision].append(ratios)
            pairs = zip(theirs.answers, ours.answers, strict=True)
            identical[precision] += sum(one.text == other.text for one, other in pairs)
            run.say(f"{clients} clients, {precision}, round {number + 1} of {run.rounds}: {ratios}")
    total = run.rounds * QUESTIONS[clients]
    return [
        {
            "clients": clients,
            "precision": precision,
            **spreads(rounds),
            "identical_answers": [identical[precision], total],
            **run.row(),
        }
        for precision, rounds in found.items()
    ]
