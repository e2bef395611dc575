"""A decoder for tests: it counts instead of computing, and checks that its KV rows hold what they should."""

from __future__ import annotations

import numpy as np

from glmserve.engine.runtime.decoder import Sampled, Step
from glmserve.limits import MAX_LOGPROBS


class FakeSession:
    """Answers each token with the next number modulo `vocabulary`, and checks that its KV rows hold what they should.

    A row's "KV" is the list of tokens fed to it, so a test sees at once when a row was overwritten or misplaced.
    Decode steps are padded to `bucket` rows, which writes a stray token into the rows that follow, as a device does.
    A mask's first allowed token is drawn, and `broken` tokens make a row's numbers break. Where logits are edited, the
    next number's logit is 1 and the others' are 0.
    """

    def __init__(
        self,
        rows: int = 4,
        context: int = 64,
        vocabulary: int = 1000,
        bucket: int = 1,
        broken: int | None = None,
        short_rows: int = 0,
        short_tokens: int = 0,
    ) -> None:
        self.short_rows, self.short_tokens = short_rows, short_tokens
        self.rows, self.context, self.vocabulary, self.candidates = rows, context, vocabulary, 8
        self.kv: list[list[int]] = [[] for _ in range(rows)]
        self.steps: list[Step] = []
        self._bucket = bucket
        self._broken = broken

    def warm_up(self) -> None:
        pass

    def run(self, step: Step) -> Sampled:
        self.steps.append(step)
        count, offset = step.decoded, step.decoded
        for row, length in enumerate(step.lengths):
            self._feed(step.first_decoded + row, length, step.input_ids[row : row + 1])
        is_decoding_too = bool((step.chunk_new == 1).all())
        assert len(step.chunk_new) <= 1 or is_decoding_too or not step.chunk_lengths.any(), "rows are no longer fresh"
        decoded = range(step.first_decoded, step.first_decoded + count)
        for index, (length, new) in enumerate(zip(step.chunk_lengths, step.chunk_new, strict=True)):
            assert step.first_row + index not in decoded, "a row is decoded and read at once"
            self._feed(step.first_row + index, length, step.input_ids[offset : offset + new])
            offset += new
        if step.draft_row is not None:
            assert step.draft_row < count and not len(step.chunk_new) and step.draft_tokens
            row = step.first_decoded + step.draft_row
            self._feed(row, step.lengths[step.draft_row] + 1, step.input_ids[offset:])
            offset += step.draft_tokens
        assert offset == len(step.input_ids)
        if step.is_decode:
            self._stray(step.first_decoded, count, step.parked)
            if step.parked_beside is not None:
                self._stray(step.first_row, step.beside, step.parked_beside)
        last = step.input_ids[step.drawn]
        tokens = (last + 1) % self.vocabulary
        for row_index, mask in zip(step.sampler.mask_rows[:, 0], step.sampler.mask, strict=True):
            tokens[row_index] = int(mask.argmax())
        for row_index in np.unique(step.sampler.edit_index[:, 0]).tolist():
            tokens[row_index] = self._likeliest(int(last[row_index]), row_index, step)
        tokens[last == self._broken] = -1
        wanted = step.sampler.logprob_rows
        ids = np.repeat(tokens[wanted][:, None], 1 + MAX_LOGPROBS, axis=1)
        return Sampled(tokens, ids, np.zeros(ids.shape, np.float32))

    def _likeliest(self, last: int, row: int, step: Step) -> int:
        sampler, logits = step.sampler, np.zeros(self.vocabulary, np.float32)
        logits[(last + 1) % self.vocabulary] = 1
        edited = sampler.edit_index[:, 0] == row
        tokens, penalty = sampler.edit_index[edited, 1], sampler.penalty[edited]
        seen = logits[tokens]
        logits[tokens] = np.where(seen > 0, seen / penalty, seen * penalty) + sampler.bias[edited]
        for mask in sampler.mask[sampler.mask_rows[:, 0] == row]:
            logits[~mask] = -np.inf
        return int(logits.argmax())

    def _feed(self, index: int, length: int, tokens: np.ndarray) -> None:
        assert index < self.rows
        row = self.kv[index]
        assert len(row) >= length, "the row lacks the tokens it is said to hold"
        del row[length:]
        row.extend(tokens.tolist())
        assert len(row) <= self._room(index), "the row holds more than it has room for"

    def _stray(self, first: int, count: int, parked: np.ndarray) -> None:
        for index in range(min(-count % self._bucket, len(parked))):
            row = first + count + index
            stray = self.kv[row]
            del stray[min(int(parked[index]), self._room(row) - 1) :]
            stray.append(-7)

    def _room(self, row: int) -> int:
        return self.short_tokens if row < self.short_rows else self.context

    def move(self, source: int, target: int, length: int) -> None:
        assert len(self.kv[source]) >= length, "a move takes along what is not there"
        assert length <= self._room(target), "a move takes along more than there is room for"
        self.kv[target] = self.kv[source][:length]
