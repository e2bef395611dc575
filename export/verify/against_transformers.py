"""Compares a build with transformers, stage by stage and answer by answer; needs torch and transformers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console

from export.verify.candidate import Candidate
from export.verify.cases import Case, input_ids, standard_cases, synthetic_image, video_cases
from export.verify.comparison import Stage, share_changed
from export.verify.layerwise import layerwise_stages, must_stream
from export.verify.original import Original
from export.verify.parity import compare
from export.verify.reference import Reference
from glmserve.engine.runtime.device import DeviceName
from glmserve.model.chat_template import ImagePart, Message

_SLOTS = 8
_CONTEXT = 1024
_ANSWER_TOKENS = 32
_QUESTIONS = (
    "What is in this picture?",
    "How many shapes are there?",
    "图中有什么？",
    "What colour is the background?",
)


def compare_with_transformers(
    build: Path, original: Original, samples: int, device: DeviceName, console: Console
) -> Iterator[Stage]:
    """Every stage as it is done; `samples` greedy answers are compared token by token.

    A checkpoint that does not fit in memory is compared layer by layer, and its answers are not.
    """
    if must_stream(original.folder):
        console.print("the checkpoint does not fit in memory: each layer is loaded and compared alone ...")
        yield from layerwise_stages(build, original.folder, original.weights)
        return
    candidate = Candidate(build, _SLOTS, _CONTEXT, device)
    console.print("loading the checkpoint in transformers ...")
    reference = Reference(original.folder, [adapter.folder for adapter in original.adapters])
    yield from compare(reference, candidate, [*standard_cases(), *video_cases(candidate.prompts)])
    yield from _greedy_agreement(reference, candidate, samples)


def _greedy_agreement(reference: Reference, candidate: Candidate, answers: int) -> Iterator[Stage]:
    """The share of greedy answers that differ from `generate` in any token, and of their tokens that differ when what
    stands before them does not."""
    changed_answers, changed_tokens = [], []
    for index in range(answers):
        image = synthetic_image(112 + 28 * (index % 5), 112 + 28 * (index % 3), seed=100 + index)
        question = _QUESTIONS[index % len(_QUESTIONS)]
        case = Case(f"answer {index}", (Message("user", (ImagePart(), question)),), (image,))
        ids = input_ids(candidate, case)
        prompt, wanted = candidate.prompt(ids, [image]), reference.answer(ids, [image], _ANSWER_TOKENS)
        changed_answers.append(candidate.answer(prompt, _ANSWER_TOKENS) != wanted)
        changed_tokens += (candidate.likeliest(prompt, wanted) != np.asarray(wanted)).tolist()
    tolerances = candidate.tolerances
    yield share_changed(f"{answers} greedy answers: share changed", changed_answers, tolerances.answers)
    yield share_changed(f"their {len(changed_tokens)} tokens: share changed", changed_tokens, tolerances.tokens)
