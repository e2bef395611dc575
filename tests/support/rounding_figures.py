"""Measures what rounding does to the demo's answers: `python tests/support/rounding_figures.py QUESTIONS FP32 BUILD…`.

Unseen pictures and questions are answered greedily by the build in fp32. For every other build it says how many of
these answers would come out otherwise, the perplexity of the answers, and the divergence from the fp32 probabilities.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from demo.exam import PICTURE_KINDS, Asked, unseen
from export.verify.candidate import Candidate
from export.verify.cases import Case, input_ids
from glmserve.model.chat_template import ImagePart, Message

FIRST_SEED = 500_000
"""Questions from here on are neither golden ones nor anything that a build was calibrated on."""
KINDS = (*PICTURE_KINDS, "greeting")
"""Of one picture or none."""
MOST_TOKENS, CONTEXT = 96, 512


def main(questions: int, exact: Path, others: list[Path]) -> None:
    cases = [_case(asked) for asked in unseen(questions, KINDS, first_seed=FIRST_SEED)]
    right = Candidate(exact, 1, CONTEXT)
    answers = [right.answer(right.prompt(input_ids(right, case), list(case.images)), MOST_TOKENS) for case in cases]
    wanted = [_log_probabilities(right, case, answer) for case, answer in zip(cases, answers, strict=True)]
    print(f"fp32: perplexity {_perplexity(wanted, answers):.4f} of {sum(map(len, answers))} tokens")
    for build in others:
        candidate = Candidate(build, 1, CONTEXT)
        found = [_log_probabilities(candidate, case, answer) for case, answer in zip(cases, answers, strict=True)]
        changed = sum(bool((one.argmax(-1) != answer).any()) for one, answer in zip(found, answers, strict=True))
        divergence = np.concatenate([(np.exp(r) * (r - f)).sum(-1) for r, f in zip(wanted, found, strict=True)]).mean()
        print(
            f"{build.name}: {changed} of {questions} answers changed, perplexity {_perplexity(found, answers):.4f}, "
            f"divergence {divergence:.2e}"
        )


def _case(asked: Asked) -> Case:
    images = () if asked.image is None else (asked.image,)
    parts = (*(ImagePart() for _ in images), asked.question.text)
    return Case("", (Message("user", parts),), images, asked.thinking)


def _log_probabilities(candidate: Candidate, case: Case, answer: list[int]) -> np.ndarray:
    """At each place of an answer, what stands before it being given: f64 [tokens, vocabulary]."""
    prompt = candidate.prompt(input_ids(candidate, case), list(case.images))
    logits = candidate.logits_along(prompt, answer, CONTEXT).astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True)))


def _perplexity(found: list[np.ndarray], answers: list[list[int]]) -> float:
    said = [one[np.arange(len(answer)), answer] for one, answer in zip(found, answers, strict=True)]
    return float(np.exp(-np.concatenate(said).mean()))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
