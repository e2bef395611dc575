"""What the engine needs of a decoder, and a fake one that counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from glmserve.engine.sampling import SamplerInputs
from glmserve.limits import MAX_LOGPROBS


@dataclass(frozen=True)
class Step:
    """One run of the decoder over rows [first_row, first_row + B), each fed up to S new tokens.

    `input_ids` and `image_slot` i64 [B, S], `positions` i64 [3, B, S], `lengths` i32 [B] tokens already in each row,
    `new` i64 [B] tokens fed to each row, the rest of S being padding (only where `lengths` are 0), `features` f32
    [M, hidden] or None where no picture token is fed. The last new token of a row is the one sampled after.
    `parked` i32, of a decode step only, counts the tokens in the rows after the last, which may be run as padding.
    """

    first_row: int
    input_ids: np.ndarray
    image_slot: np.ndarray
    positions: np.ndarray
    lengths: np.ndarray
    new: np.ndarray
    features: np.ndarray | None
    sampler: SamplerInputs
    parked: np.ndarray | None

    @property
    def is_decode(self) -> bool:
        return self.parked is not None


@dataclass(frozen=True)
class Sampled:
    """What a step drew: `tokens` i64 [B], -1 where a row's numbers were not finite; with log-probabilities of the rows
    that asked, ids i64 and values f32 [Q, 1 + alternatives]."""

    tokens: np.ndarray
    logprob_ids: np.ndarray
    logprob_values: np.ndarray


class DecoderSession(Protocol):
    """A decoder with its KV rows; used by one thread. `rows` is how many there are."""

    rows: int
    context: int
    candidates: int
    vocabulary: int

    def run(self, step: Step) -> Sampled:
        """Feeds the step's tokens and samples after each row's last."""
        ...

    def move(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` tokens of a row's KV to another row."""
        ...


class FakeSession:
    """Answers each token with the next number modulo `vocabulary`, and checks that its KV rows hold what they should.

    A row's "KV" is the list of tokens fed to it, so a test sees at once when a row was overwritten or misplaced.
    Decode steps are padded to `bucket` rows, which writes a stray token into the rows that follow, as a device does.
    A mask's first allowed token is drawn, and `broken` tokens make a row's numbers break.
    """

    def __init__(
        self, rows: int = 4, context: int = 64, vocabulary: int = 1000, bucket: int = 1, broken: int | None = None
    ) -> None:
        self.rows, self.context, self.vocabulary, self.candidates = rows, context, vocabulary, 8
        self.kv: list[list[int]] = [[] for _ in range(rows)]
        self.steps: list[Step] = []
        self._bucket = bucket
        self._broken = broken

    def run(self, step: Step) -> Sampled:
        self.steps.append(step)
        count = len(step.lengths)
        assert step.first_row + count <= self.rows
        for index, (length, new) in enumerate(zip(step.lengths, step.new, strict=True)):
            row = self.kv[step.first_row + index]
            assert len(row) >= length, "the row lacks the tokens it is said to hold"
            assert new == step.input_ids.shape[1] or length == 0, "only fresh rows may be padded"
            del row[length:]
            row.extend(int(token) for token in step.input_ids[index, :new])
            assert len(row) <= self.context, "the row is longer than the context"
        if step.parked is not None:
            for index in range(-count % self._bucket):
                row = self.kv[count + index]
                del row[min(int(step.parked[index]), self.context - 1) :]
                row.append(-7)
        last = step.input_ids[np.arange(count), step.new - 1]
        tokens = (last + 1) % self.vocabulary
        for row_index, mask in zip(step.sampler.mask_rows[:, 0], step.sampler.mask, strict=True):
            tokens[row_index] = int(mask.argmax())
        tokens[last == self._broken] = -1
        wanted = step.sampler.logprob_rows
        ids = np.repeat(tokens[wanted][:, None], 1 + MAX_LOGPROBS, axis=1)
        return Sampled(tokens, ids, np.zeros(ids.shape, np.float32))

    def move(self, source: int, target: int, length: int) -> None:
        assert len(self.kv[source]) >= length, "a move takes along what is not there"
        self.kv[target] = self.kv[source][:length]
