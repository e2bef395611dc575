"""Compares a build with transformers stage by stage, from pixels to decoded tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from export.verify.candidate import Candidate
from export.verify.cases import Case, input_ids
from export.verify.comparison import Stage
from export.verify.tolerances import PATCHES
from glmserve.model.image_processor import Grid

if TYPE_CHECKING:
    from export.verify.reference import Reference

_CHUNKS = (16, 37, 256)
_WHOLE = 1 << 30
_DECODE_STEPS = 12


def compare(reference: Reference, candidate: Candidate, cases: list[Case]) -> Iterator[Stage]:
    """Every stage of every case as it is done, then all cases decoding together."""
    for case in cases:
        yield from _compare_case(reference, candidate, case)
    yield from compare_decode(reference, candidate, cases)


def _compare_case(reference: Reference, candidate: Candidate, case: Case) -> Iterator[Stage]:
    grids: list[Grid] = []
    tolerances = candidate.tolerances
    for image in case.images:
        normalised, grid = candidate.normalised(image)
        pixels, _ = reference.processor.pixels([image])
        frames = pixels.reshape(len(pixels), 3, -1, normalised.shape[-1])
        right = frames.transpose(2, 0, 1, 3)[: grid.frames].reshape(normalised.shape)
        yield Stage.of(f"{case.name}: patches", normalised, right, PATCHES)
        features, _ = candidate.features(image)
        right = reference.features(pixels, [grid])
        yield Stage.of(f"{case.name}: vision", features, right, tolerances.features, tolerances.is_relative)
        grids.append(grid)
    ids = input_ids(candidate, case)
    yield Stage.of(f"{case.name}: tokens", ids, reference.processor.input_ids(case, grids), 0)
    prompt = candidate.prompt(ids, list(case.images))
    yield Stage.of(f"{case.name}: positions", prompt.positions, reference.positions(ids, grids), 0)
    wanted = reference.logits(ids, list(case.images))
    for chunk in (_WHOLE, *_CHUNKS):
        candidate.poison()
        found = candidate.prefill(prompt, row=candidate.decoder.rows - 1, chunk_tokens=chunk)
        ends = [min(start + chunk, len(ids)) - 1 for start in range(0, len(ids), chunk)]
        title = "prefill" if chunk == _WHOLE else f"prefill in chunks of {chunk}"
        yield Stage.of(f"{case.name}: {title}", found, wanted[ends], tolerances.logits, tolerances.is_relative)


def compare_decode(reference: Reference, candidate: Candidate, cases: list[Case]) -> list[Stage]:
    """All cases' answers decoded side by side, one row each, against transformers' logits of each alone."""
    candidate.poison()
    count = min(len(cases), candidate.decoder.rows)
    sequences, prompts, logits = [], [], []
    for row, case in enumerate(cases[:count]):
        ids = input_ids(candidate, case)
        prompt = candidate.prompt(ids, list(case.images))
        logits.append([candidate.prefill(prompt, row, _WHOLE)[-1]])
        prompts.append(prompt)
        sequences.append(ids.tolist())
    for _ in range(_DECODE_STEPS):
        for row in range(count):
            sequences[row].append(int(np.argmax(logits[row][-1])))
        step = candidate.decode(
            [sequence[-1] for sequence in sequences],
            [len(sequence) - 1 for sequence in sequences],
            [prompt.delta for prompt in prompts],
        )
        for row in range(count):
            logits[row].append(step[row])
    stages = []
    for row, case in enumerate(cases[:count]):
        wanted = reference.logits(np.asarray(sequences[row], np.int64), list(case.images))
        start = prompts[row].length - 1
        title, found, right = f"{case.name}: decode among {count} rows", np.stack(logits[row]), wanted[start:]
        stages.append(Stage.of(title, found, right, candidate.tolerances.logits, candidate.tolerances.is_relative))
        stages.append(Stage.of_divergence(title, found, right, candidate.tolerances.divergence))
    return stages
