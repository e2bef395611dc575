"""What the engine needs of a decoder, and a fake one that counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class SamplerInputs:
    """`temperature` and `top_p` f32 [B, 1], `top_k` i64 [B, 1], `uniform` f32 [B, candidates]."""

    temperature: np.ndarray
    top_k: np.ndarray
    top_p: np.ndarray
    uniform: np.ndarray


@dataclass(frozen=True)
class Step:
    """One run of the decoder over rows [first_row, first_row + B), each fed S new tokens.

    `input_ids` and `image_slot` i64 [B, S], `positions` i64 [3, B, S], `lengths` i32 [B] tokens already in each row,
    `features` f32 [M, hidden] or None where no picture token is fed. The last of the S tokens is the one sampled after.
    """

    first_row: int
    input_ids: np.ndarray
    image_slot: np.ndarray
    positions: np.ndarray
    lengths: np.ndarray
    features: np.ndarray | None
    sampler: SamplerInputs


class DecoderSession(Protocol):
    """A decoder with its KV rows; used by one thread."""

    slots: int
    context: int
    candidates: int

    def run(self, step: Step) -> np.ndarray:
        """Feeds the step's tokens and returns the sampled tokens i64 [B]."""
        ...

    def move(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` tokens of a row's KV to another row."""
        ...


class FakeSession:
    """Answers each token with the next number modulo `vocabulary`, and checks that its KV rows hold what they should.

    A row's "KV" is the list of tokens fed to it, so a test sees at once when a row was overwritten or misplaced.
    """

    def __init__(self, slots: int = 4, context: int = 64, vocabulary: int = 1000) -> None:
        self.slots, self.context, self.candidates = slots, context, 8
        self.rows: list[list[int]] = [[] for _ in range(slots)]
        self.steps: list[Step] = []
        self._vocabulary = vocabulary

    def run(self, step: Step) -> np.ndarray:
        self.steps.append(step)
        for index, length in enumerate(step.lengths):
            row = self.rows[step.first_row + index]
            assert len(row) >= length, "the row lacks the tokens it is said to hold"
            del row[length:]
            row.extend(int(token) for token in step.input_ids[index])
            assert len(row) <= self.context, "the row is longer than the context"
        return (step.input_ids[:, -1] + 1) % self._vocabulary

    def move(self, source: int, target: int, length: int) -> None:
        self.rows[target] = self.rows[source][:length]
