"""What the engine needs of a decoder: one step in, sampled tokens out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from glmserve.engine.request import Logprobs
from glmserve.engine.runtime.sampling import SamplerInputs


@dataclass(frozen=True)
class Step:
    """One step of the decoder: one new token for each of the rows [first_decoded, first_decoded + D), and prefill
    chunks in the rows [first_row, first_row + C). D or C may be 0. All of them are of one size on either side.

    The T tokens lie side by side, those of the decoded rows first, then each prompt's: `input_ids` and `image_slot` i64
    [T], `positions` i64 [3, T], `features` f32 [M, hidden] or None where no image token is fed. `lengths` i32 [D] and
    `chunk_lengths` i32 [C] count the tokens in the rows before, `chunk_new` i64 [C] those that a prompt's row is fed;
    several chunks must begin their rows, or have one token each, which is how rows of another size are decoded. Instead
    of chunks there may be draft tokens after the newest token of the decoded row `draft_row`, counted from the first of
    them. A token is sampled after each of the tokens `drawn` i64 [N], one for each row of `sampler`.
    `parked` i32 counts the tokens in the rows after the decoded ones, which a decode step may run as padding, and
    `parked_beside` those after the rows of another size, where these are decoded.
    """

    input_ids: np.ndarray
    image_slot: np.ndarray
    positions: np.ndarray
    features: np.ndarray | None
    lengths: np.ndarray
    first_row: int
    chunk_lengths: np.ndarray
    chunk_new: np.ndarray
    drawn: np.ndarray
    sampler: SamplerInputs
    parked: np.ndarray
    draft_row: int | None = None
    first_decoded: int = 0
    parked_beside: np.ndarray | None = None

    @staticmethod
    def drawing(input_ids: np.ndarray, positions: np.ndarray, drawn: np.ndarray, sampler: SamplerInputs) -> Step:
        """A step of text that samples after the tokens `drawn`, with no decoded rows and no chunks yet."""
        empty = np.empty(0, np.int32)
        return Step(
            input_ids=input_ids,
            image_slot=np.zeros_like(input_ids),
            positions=positions,
            features=None,
            lengths=empty,
            first_row=0,
            chunk_lengths=empty,
            chunk_new=np.empty(0, np.int64),
            drawn=drawn,
            sampler=sampler,
            parked=empty,
        )

    @property
    def decoded(self) -> int:
        """Rows that are fed one token."""
        return len(self.lengths)

    @property
    def draft_tokens(self) -> int:
        """How many draft tokens there are."""
        return 0 if self.draft_row is None else len(self.input_ids) - self.decoded

    @property
    def beside(self) -> int:
        """Rows of another size that are decoded."""
        return 0 if self.parked_beside is None else len(self.chunk_new)

    @property
    def is_decode(self) -> bool:
        """Whether the step only decodes, without prefill or draft tokens."""
        return len(self.chunk_new) == self.beside and self.draft_row is None


@dataclass(frozen=True)
class Pace:
    """Seconds of a decode step of one row, and of each token of a prompt's chunk."""

    step_s: float
    prompt_token_s: float


@dataclass(frozen=True)
class Sampled:
    """A step's samples: `tokens` i64 [N], -1 where a row's numbers were not finite; with log-probabilities of the rows
    that asked, ids i64 and values f32 [Q, 1 + alternatives]."""

    tokens: np.ndarray
    logprob_ids: np.ndarray
    logprob_values: np.ndarray

    def logprobs(self, rows: np.ndarray) -> dict[int, Logprobs]:
        """Those of each row that asked, i64 [Q], by its number."""
        ids, values = self.logprob_ids, self.logprob_values
        return {int(row): Logprobs(ids[at : at + 1], values[at : at + 1]) for at, row in enumerate(rows)}


class DecoderSession(Protocol):
    """A decoder with its KV rows; used by one thread. `rows` is how many there are; the first `short_rows` of them hold
    `short_tokens`, the others `context`."""

    rows: int
    short_rows: int
    short_tokens: int
    context: int
    candidates: int
    vocabulary: int

    def warm_up(self) -> Pace | None:
        """Does the first steps' slow work in advance, on the thread that runs them, while all rows are empty. Says how
        long steps take, where it measures that."""
        ...

    def run(self, step: Step) -> Sampled:
        """Feeds the step's tokens and samples after each row's last."""
        ...

    def move(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` tokens of a row's KV to another row."""
        ...
