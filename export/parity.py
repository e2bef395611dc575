"""Compares a build with transformers stage by stage, from pixels to decoded tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from export.candidate import Candidate
from export.reference import Reference
from glmserve.images import Grid
from glmserve.prompt import Message, Picture

TOLERANCE = 1e-4
_CHUNKS = (16, 37, 256)
_WHOLE = 1 << 30
_DECODE_STEPS = 12


@dataclass(frozen=True)
class Stage:
    """One comparison: the worst and the typical (median) error, and what is allowed of the worst."""

    name: str
    worst: float
    typical: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return bool(self.worst <= self.tolerance)  # a NaN does not pass

    @staticmethod
    def of(
        name: str, found: np.ndarray, wanted: np.ndarray, tolerance: float = TOLERANCE, is_relative: bool = False
    ) -> Stage:
        """Compares number by number, or, relatively, vector by vector along the last axis."""
        if found.shape != wanted.shape:
            return Stage(f"{name} (shape {list(found.shape)}, not {list(wanted.shape)})", np.inf, np.inf, tolerance)
        error = np.abs(found.astype(np.float64) - wanted)
        if is_relative:
            name = f"{name}, relative"
            error = np.linalg.norm(error, axis=-1) / np.linalg.norm(wanted.astype(np.float64), axis=-1)
        return Stage(name, float(error.max(initial=0.0)), float(np.median(error)) if error.size else 0.0, tolerance)

    @staticmethod
    def of_divergence(name: str, found: np.ndarray, wanted: np.ndarray, tolerance: float) -> Stage:
        """Kullback-Leibler divergence in nats of the probabilities that logits [tokens, vocabulary] stand for."""
        right, ours = _log_probabilities(wanted), _log_probabilities(found)
        divergence = (np.exp(right) * (right - ours)).sum(axis=-1)
        return Stage(f"{name}, divergence", float(divergence.max()), float(np.median(divergence)), tolerance)


def _log_probabilities(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


@dataclass(frozen=True)
class Case:
    """A conversation to compare: messages as the service takes them, and their pictures in order."""

    name: str
    messages: tuple[Message, ...]
    pictures: tuple[Image.Image, ...] = ()
    thinking: bool = False


def standard_cases() -> list[Case]:
    """Text only, one picture, a non-square one, two pictures, a second turn, thinking, Chinese."""
    square, wide, tall = sketch(224, 224, 1), sketch(500, 180, 2), sketch(90, 333, 3)
    one = Picture()
    return [
        Case("text only", (Message("user", ("Hello, who are you?",)),)),
        Case("one picture", (Message("user", (one, "What is in this picture?")),), (square,)),
        Case("non-square picture", (Message("user", (one, "How many shapes?")),), (wide,)),
        Case("two pictures", (Message("user", (one, one, "Which one is red?")),), (tall, square)),
        Case(
            "second turn",
            (
                Message("user", (one, "What colour is the shape?")),
                Message("assistant", ("blue",)),
                Message("user", ("And where is it?",)),
            ),
            (wide,),
        ),
        Case("thinking", (Message("user", (one, "Read the number.")),), (tall,), thinking=True),
        Case("Chinese", (Message("user", (one, "图中有几个三角形？")),), (square,)),
        Case("system", (Message("system", ("Be brief.",)), Message("user", ("你好",)))),
    ]


def sketch(width: int, height: int, seed: int) -> Image.Image:
    """A busy picture that depends on nothing but its arguments."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 255, (max(1, height // 12), max(1, width // 12), 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(picture)
    for _ in range(6):
        x, y = int(random.integers(0, width)), int(random.integers(0, height))
        colour = tuple(int(c) for c in random.integers(0, 255, 3))
        draw.ellipse((x, y, x + width // 5, y + height // 5), fill=colour)
    return picture


def compare(reference: Reference, candidate: Candidate, cases: list[Case]) -> Iterator[Stage]:
    """Every stage of every case as it is done, then all cases decoding together."""
    for case in cases:
        yield from _compare_case(reference, candidate, case)
    yield from compare_decode(reference, candidate, cases)


def _compare_case(reference: Reference, candidate: Candidate, case: Case) -> Iterator[Stage]:
    grids: list[Grid] = []
    allowed = candidate.allowed
    for picture in case.pictures:
        normalised, grid = candidate.normalised(picture)
        pixels, _ = reference.pixels([picture])
        frames = pixels.reshape(len(pixels), 3, -1, normalised.shape[-1])
        yield Stage.of(f"{case.name}: patches", normalised, frames[:, :, 0], 1e-5)
        features, _ = candidate.features(picture)
        right = reference.features(pixels, [grid])
        yield Stage.of(f"{case.name}: vision", features, right, allowed.features, allowed.is_relative)
        grids.append(grid)
    ids = input_ids(candidate, case)
    yield Stage.of(f"{case.name}: tokens", ids, _expanded(reference, candidate, case, grids), 0)
    prompt = candidate.prompt(ids, list(case.pictures))
    yield Stage.of(f"{case.name}: positions", prompt.positions, reference.positions(ids, grids), 0)
    wanted = reference.logits(ids, list(case.pictures))
    for chunk in (_WHOLE, *_CHUNKS):
        candidate.poison()
        found = candidate.prefill(prompt, row=candidate.decoder.rows - 1, chunk_tokens=chunk)
        ends = [min(start + chunk, len(ids)) - 1 for start in range(0, len(ids), chunk)]
        title = "prefill" if chunk == _WHOLE else f"prefill in chunks of {chunk}"
        yield Stage.of(f"{case.name}: {title}", found, wanted[ends], allowed.logits, allowed.is_relative)


def compare_decode(reference: Reference, candidate: Candidate, cases: list[Case]) -> list[Stage]:
    """All cases' answers decoded side by side, one row each, against transformers' logits of each alone."""
    candidate.poison()
    count = min(len(cases), candidate.decoder.rows)
    sequences, prompts, logits = [], [], []
    for row, case in enumerate(cases[:count]):
        ids = input_ids(candidate, case)
        prompt = candidate.prompt(ids, list(case.pictures))
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
        wanted = reference.logits(np.asarray(sequences[row], np.int64), list(case.pictures))
        start = prompts[row].length - 1
        title, found, right = f"{case.name}: decode among {count} rows", np.stack(logits[row]), wanted[start:]
        stages.append(Stage.of(title, found, right, candidate.allowed.logits, candidate.allowed.is_relative))
        stages.append(Stage.of_divergence(title, found, right, candidate.allowed.divergence))
    return stages


def input_ids(candidate: Candidate, case: Case) -> np.ndarray:
    """The case's prompt tokens, pictures expanded."""
    grids = [candidate.normalised(picture)[1] for picture in case.pictures]
    return candidate.prompts.build(list(case.messages), grids, case.thinking)


def _expanded(reference: Reference, candidate: Candidate, case: Case, grids: list[Grid]) -> np.ndarray:
    """transformers' own prompt tokens with each picture's token repeated as its processor does."""
    messages = [{"role": message.role, "content": _content(message)} for message in case.messages]
    sizes = iter(grid.tokens(candidate.checkpoint.vision.merge_size) for grid in grids)
    expanded: list[int] = []
    for token in reference.prompt(messages, case.thinking):
        expanded += [token] * (next(sizes) if token == candidate.checkpoint.image_token_id else 1)
    return np.asarray(expanded, np.int64)


def _content(message: Message) -> str | list[dict[str, Any]]:
    if all(isinstance(part, str) for part in message.parts):
        return "".join(map(str, message.parts))
    return [{"type": "image"} if isinstance(p, Picture) else {"type": "text", "text": p} for p in message.parts]
