"""How much sooner a second question about the same image gets its first token than the first question did."""

from __future__ import annotations

from bench.checkpoints.synthetic import FULL
from bench.harness import Run
from bench.load.closed_loop import ask
from bench.load.in_process import Preparer
from bench.load.prompts import PHOTO, Question, QuestionMaker
from bench.records import Row
from bench.servers.fleet import service_on

_PROMPT_TOKENS = 24


def measure(run: Run) -> list[Row]:
    """One row: the time of an answer of one token over HTTP, second question over first, each round a new photo."""
    build = run.build(FULL)
    maker = QuestionMaker(Preparer(build).tokenizer, seed=4)
    with service_on(build, run.threads) as url:

        def one_round(_number: int) -> dict[str, float]:
            image = maker.image(PHOTO)
            questions = [Question(image, maker.prompt(_PROMPT_TOKENS)) for _ in range(2)]
            first_s, second_s = (ask(url, question, max_tokens=1).seconds for question in questions)
            return {"ttft_ratio": second_s / first_s}

        return [run.row(**run.spreads("Follow-up", one_round, warm_ups=1))]
