"""Speculative decoding by n-gram look-up: proposes draft tokens that followed the answer's last tokens before.

The decoder verifies a draft in one step: it samples after each draft token as it would one by one, and the tokens that
agree are accepted. Answers do not change, only the number of steps (Saxena 2023, "Prompt Lookup Decoding"; verification
by Leviathan et al. 2023 with a deterministic draft).
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from statistics import median

from glmserve.engine.ngram_index import AcceptanceRate, NgramIndex
from glmserve.engine.request import Sequence

_REACH = 8192
"""Only this many of a prompt's last tokens are indexed."""
_REMEMBERED = 9
_LEAST_SHARE = 0.25
"""A draft token costs at least this share of an even part of its step, even if plain steps were measured slower."""
_TRY_EVERY = 64
"""Steps after which one draft token is proposed anyway, to measure whether drafts have become cheap enough."""


@dataclass(frozen=True)
class Draft:
    """Draft tokens that may follow the newest token of a sequence."""

    sequence: Sequence
    tokens: list[int]

    def agreement(self, drawn: list[int]) -> int:
        """How many of the tokens, from the first on, are those that were drawn."""
        return next((at for at, token in enumerate(self.tokens) if drawn[at] != token), len(self.tokens))


class NgramProposer:
    """Proposes a draft for at most one sequence a step, as long as gives the most tokens a second.

    It decides by the acceptance rate and by how long steps took. Owned by the engine's thread; a draft has at most
    `most` tokens, and 0 turns speculative decoding off.
    """

    def __init__(self, most: int, min_chunk_tokens: int) -> None:
        self._most = most
        self._min_chunk_tokens = min_chunk_tokens
        self._acceptance = AcceptanceRate(right=1.0, wrong=2.0)  # a third, until known better
        self._plain_s: defaultdict[int, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))  # by rows
        self._token_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._since_draft = 0

    def observe_token(self, sequence: Sequence, token: int) -> None:
        """Records a generated token, and whether it would have been proposed."""
        if not self._most or not _may_draft(sequence):
            return
        ngrams = sequence.ngrams
        if ngrams is None:
            sequence.ngrams = ngrams = NgramIndex(sequence.request.prompt.input_ids[-_REACH:].tolist())
        elif (proposed := ngrams.next_token) is not None:
            for acceptance in (ngrams.acceptance, self._acceptance):
                acceptance.record(proposed == token)
        ngrams.add(token)

    def propose(self, rows: list[Sequence], context: int) -> Draft | None:
        """A draft for the sequence with the highest acceptance rate; None where no draft would save time."""
        self._since_draft += 1
        if not self._plain_s[len(rows)]:
            return None
        candidates = [
            (sequence, ngrams) for sequence in rows if (ngrams := sequence.ngrams) and ngrams.next_token is not None
        ]
        if not candidates:
            return None
        sequence, ngrams = max(candidates, key=lambda pair: pair[1].acceptance.rate(self._acceptance))
        count = self._worthwhile(len(rows), ngrams.acceptance.rate(self._acceptance))
        room = min(sequence.request.sampling.max_tokens - len(sequence.answer), context - sequence.length - 1) - 1
        if min(count, room) < 1:
            return None
        self._since_draft = 0
        return Draft(sequence, ngrams.continuation(min(count, room)))

    def observe_step(self, rows: int, draft: Draft | None, seconds: float) -> None:
        """Records the time of a step that ran `rows` decoded rows and the draft, if any, without prefill."""
        plain_s = self._plain_s[rows]
        if draft is None:
            plain_s.append(seconds)
            return
        drafted = len(draft.tokens)
        least_s = _LEAST_SHARE * seconds / (rows + drafted)
        self._token_s.append(max(least_s, (seconds - median(plain_s)) / drafted))

    def _worthwhile(self, rows: int, chance: float) -> int:
        """The draft length with the most tokens a second: (rows + a + a^2 + ...) / time, where `a` is the chance that a
        draft token is accepted when those before it were."""
        plain_s = median(self._plain_s[rows])
        token_s = median(self._token_s) if self._token_s else plain_s / (self._min_chunk_tokens + rows)
        best, best_rate, expected = 0, rows / plain_s, float(rows)
        for count in range(1, self._most + 1):
            expected += chance**count
            rate = expected / (plain_s + count * token_s)
            if rate > best_rate:
                best, best_rate = count, rate
        return best or int(self._since_draft >= _TRY_EVERY)


def _may_draft(sequence: Sequence) -> bool:
    request = sequence.request
    return not (request.grammar or request.sampling.logprobs or request.sampling.edits_logits)
