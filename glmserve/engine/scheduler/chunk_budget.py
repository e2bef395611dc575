"""How long steps take, learnt from the steps themselves, and how much of a prompt fits beside the decoded rows."""

from __future__ import annotations

from collections import deque
from statistics import median

_REMEMBERED = 9
"""Newest steps of a kind whose median counts: one that the machine held up moves nothing."""
_LEAST_SHARE = 0.25
"""A prompt token costs at least this share of an even part of its step, however short the step happened to be."""
_STALL = 0.4
"""Of a decode step's time, what reading a prompt may add to it for each request that waits for its first token.

Well below 1, so that one long prompt at most doubles the gap between others' tokens, noise included.
"""


class ChunkBudget:
    """Owned by the engine's thread."""

    def __init__(self, min_chunk_tokens: int) -> None:
        """`min_chunk_tokens` prompt tokens cost next to nothing beside a decode step: fewer are never worth a step."""
        self._ridge_tokens = min_chunk_tokens
        self._decode_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._token_s: deque[float] = deque(maxlen=_REMEMBERED)

    def stepped(self, rows: int, tokens: int, seconds: float) -> None:
        """Takes note of a step that decoded `rows` and read `tokens` of prompts beside them.

        What such a step takes longer than a decode step is what its prompt tokens cost.
        """
        if not tokens:
            self._decode_s.append(seconds)
        elif not rows:
            self._token_s.append(seconds / tokens)
        elif self._decode_s:
            least_s = _LEAST_SHARE * seconds / (rows + tokens)
            self._token_s.append(max(least_s, (seconds - median(self._decode_s)) / tokens))

    def chunk_tokens(self, decoding: int, beginning: int, most: int) -> int:
        """Prompt tokens for the next step, while `decoding` requests are answered and `beginning` await a first token.

        All of `most` when nobody is held up. Else as many as take 0.4 of a decode step for each that waits.
        """
        if not decoding:
            return most
        if not self._token_s or not self._decode_s:
            return min(most, self._ridge_tokens)
        allowed_s = _STALL * median(self._decode_s) * max(1, beginning)
        return min(most, max(self._ridge_tokens, int(allowed_s / median(self._token_s))))
