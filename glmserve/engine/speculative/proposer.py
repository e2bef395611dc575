"""Speculative decoding by prompt look-up: what followed the answer's last words before is likely to follow again.

The draft is fed to the decoder in one run, which draws after each of its tokens just as it would have one by one; those
that agree with the draft are kept. Answers do not change, only how many runs they take (Saxena 2023, "Prompt Lookup
Decoding"; verification by Leviathan et al. 2023, with the draft a certainty).
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from statistics import median

from glmserve.engine.ngram_index import AcceptanceRate, NgramIndex
from glmserve.engine.request import Sequence

_REACH = 8192
"""Of a longer prompt, only so many of its last tokens are looked through."""
_REMEMBERED = 9
_LEAST_SHARE = 0.25
"""A guess costs at least this share of an even part of its run, should plain runs have been slower when measured."""
_TRY_EVERY = 64
"""Runs after which one token is proposed all the same, to see whether drafts have become cheap enough."""


@dataclass(frozen=True)
class Draft:
    """Tokens that may follow the newest one of an answer."""

    running: Sequence
    tokens: list[int]


class NgramProposer:
    """Proposes what gives the most tokens a second, by how often guesses were right and what runs took so far: a draft
    for one of the answers, or none.

    Owned by the engine's thread; `most` tokens at a time, 0 for none ever.
    """

    def __init__(self, most: int, min_chunk_tokens: int) -> None:
        self._most = most
        self._ridge_tokens = min_chunk_tokens
        self._luck = AcceptanceRate(right=1.0, wrong=2.0)  # a third, until known better
        self._plain_s: defaultdict[int, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))  # by rows
        self._token_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._since_draft = 0

    def heard(self, running: Sequence, token: int) -> None:
        """Takes note of a token of an answer, and of whether it would have been guessed."""
        if not self._most or not _may_draft(running):
            return
        echo = running.echo
        if echo is None:
            running.echo = echo = NgramIndex(running.request.prompt.input_ids[-_REACH:].tolist())
        elif (guess := echo.guess) is not None:
            for luck in (echo.luck, self._luck):
                luck.note(guess == token)
        echo.add(token)

    def draft(self, rows: list[Sequence], context: int) -> Draft | None:
        """What may follow one of the answers so far: the one whose guesses were right most often. None where nothing is
        known or worth its time."""
        self._since_draft += 1
        if not self._plain_s[len(rows)]:
            return None
        guessed = [(running, echo) for running in rows if (echo := running.echo) and echo.guess is not None]
        if not guessed:
            return None
        running, echo = max(guessed, key=lambda pair: pair[1].luck.chance(self._luck))
        count = self._worthwhile(len(rows), echo.luck.chance(self._luck))
        room = min(running.request.sampling.max_tokens - len(running.answer), context - running.length - 1) - 1
        if min(count, room) < 1:
            return None
        self._since_draft = 0
        return Draft(running, echo.continuation(min(count, room)))

    def stepped(self, rows: int, draft: Draft | None, seconds: float) -> None:
        """Takes note of a run for so many rows that was fed a draft, perhaps none, and nothing else."""
        plain_s = self._plain_s[rows]
        if draft is None:
            plain_s.append(seconds)
            return
        drafted = len(draft.tokens)
        least_s = _LEAST_SHARE * seconds / (rows + drafted)
        self._token_s.append(max(least_s, (seconds - median(plain_s)) / drafted))

    def _worthwhile(self, rows: int, chance: float) -> int:
        """The length of draft with the most tokens a second: (rows + a + a^2 + ...) / time, a being the chance that a
        token is right when those before it are."""
        plain_s = median(self._plain_s[rows])
        token_s = median(self._token_s) if self._token_s else plain_s / (self._ridge_tokens + rows)
        best, best_rate, expected = 0, rows / plain_s, float(rows)
        for count in range(1, self._most + 1):
            expected += chance**count
            rate = expected / (plain_s + count * token_s)
            if rate > best_rate:
                best, best_rate = count, rate
        return best or int(self._since_draft >= _TRY_EVERY)


def _may_draft(running: Sequence) -> bool:
    request = running.request
    return not (request.grammar or request.sampling.logprobs or request.sampling.repetition_penalty != 1)
