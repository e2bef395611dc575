"""Speculative decoding by prompt look-up: what followed the answer's last words before is likely to follow again.

The draft is fed to the decoder in one run, which draws after each of its tokens just as it would have one by one; those
that agree with the draft are kept. Answers do not change, only how many runs they take (Saxena 2023, "Prompt Lookup
Decoding"; verification by Leviathan et al. 2023, with the draft a certainty).
"""

from __future__ import annotations

from collections import deque
from statistics import median

import numpy as np

from glmserve.engine.request import Running

_NGRAMS = (3, 2)
"""Words that must agree for what followed them to be proposed; the longer ones are looked for first."""
_FORGETTING = 0.9
"""What an earlier draft counts of the next one."""
_REMEMBERED = 9
_TRY_EVERY = 16
"""Runs after which one token is proposed all the same, to see whether drafts have become worth it."""


class Lookup:
    """Proposes as many tokens as give the most tokens a second, by what drafts were worth and what runs took so far.

    Owned by the engine's thread; `most` tokens at a time, 0 for none ever.
    """

    def __init__(self, most: int, ridge_tokens: int) -> None:
        self._most = most
        self._ridge_tokens = ridge_tokens
        self._right, self._wrong = 1.0, 2.0  # a third, until known better
        self._plain_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._token_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._since_try = 0

    def draft(self, running: Running, context: int) -> list[int]:
        """What may follow the answer so far; empty where nothing is known or worth a try."""
        request = running.request
        if not self._most or not self._plain_s or running.mask or running.seen is not None or request.wants_logprobs:
            return []
        count = min(self._worthwhile(), request.max_tokens - len(running.answer) - 1, context - running.length - 1)
        if count < 1:
            return []
        return continuation(np.concatenate([request.prompt.input_ids, np.array(running.answer, np.int64)]), count)

    def stepped(self, drafted: int, accepted: int, seconds: float) -> None:
        """Takes note of a run for one row that was fed a draft of so many tokens, perhaps none."""
        if not drafted:
            self._plain_s.append(seconds)
            return
        self._right = _FORGETTING * self._right + accepted
        self._wrong = _FORGETTING * self._wrong + (accepted < drafted)
        if self._plain_s:
            self._token_s.append(max(0.0, seconds - median(self._plain_s)) / drafted)

    def _worthwhile(self) -> int:
        """The length of draft with the most tokens a second: (1 + a + a^2 + ...) / time, a being the chance that a
        token is right when those before it are."""
        plain_s = median(self._plain_s)
        token_s = median(self._token_s) if self._token_s else plain_s / self._ridge_tokens
        chance = self._right / (self._right + self._wrong)
        best, best_rate, expected = 0, 1 / plain_s, 1.0
        for count in range(1, self._most + 1):
            expected += chance**count
            rate = expected / (plain_s + count * token_s)
            if rate > best_rate:
                best, best_rate = count, rate
        self._since_try = 0 if best else self._since_try + 1
        if self._since_try >= _TRY_EVERY:
            self._since_try = 0
            return 1
        return best


def continuation(tokens: np.ndarray, count: int) -> list[int]:
    """Up to `count` tokens that followed the newest earlier place where i64 tokens [n] ended as they do now.

    Where that place overlaps the end, what repeats is taken to go on repeating.
    """
    total = len(tokens)
    for size in _NGRAMS:
        if total <= size:
            continue
        tail = tokens[total - size :]
        windows = np.lib.stride_tricks.sliding_window_view(tokens[:-1], size)
        found = np.flatnonzero((windows == tail).all(axis=1))
        if len(found):
            period = total - size - int(found[-1])
            return [int(tokens[total - period + index % period]) for index in range(count)]
    return []
