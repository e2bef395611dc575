"""How long steps take, learnt from the steps themselves, and how much prompt fits between two of them."""

from __future__ import annotations

_WEIGHT = 0.3
"""Share of the newest step in the running means."""
_LEAST_SHARE = 0.25
"""A prompt token costs at least this share of an even part of its step, however short the step happened to be."""
_STALL = 0.7
"""Of a decode step's time, what reading a prompt may add to it for each request that waits for its first token.

Below 1, so that one long prompt at most doubles the gap between the tokens of those being answered, noise included.
"""


class Pace:
    """Owned by the engine's thread; means weigh the newest step most."""

    def __init__(self, ridge_tokens: int) -> None:
        """`ridge_tokens` prompt tokens cost about as much as one decode step: fewer are never worth a step."""
        self._ridge_tokens = ridge_tokens
        self._decode_s = 0.0
        self._token_s = 0.0

    def stepped(self, rows: int, tokens: int, seconds: float) -> None:
        """Takes note of a step that decoded `rows` and read `tokens` of prompts beside them.

        What such a step takes longer than a decode step is what its prompt tokens cost.
        """
        if not tokens:
            self._decode_s = _mean(self._decode_s, seconds)
        elif not rows:
            self._token_s = _mean(self._token_s, seconds / tokens)
        elif self._decode_s:
            least_s = _LEAST_SHARE * seconds / (rows + tokens)
            self._token_s = _mean(self._token_s, max(least_s, (seconds - self._decode_s) / tokens))

    def chunk_tokens(self, decoding: int, beginning: int, most: int) -> int:
        """Prompt tokens for the next step, while `decoding` requests are answered and `beginning` await a first token.

        All of `most` when nobody is held up. Else as many as take 0.7 of a decode step for each that waits.
        """
        if not decoding:
            return most
        if not self._token_s or not self._decode_s:
            return min(most, self._ridge_tokens)
        allowed_s = _STALL * self._decode_s * max(1, beginning)
        return min(most, max(self._ridge_tokens, int(allowed_s / self._token_s)))


def _mean(before: float, newest: float) -> float:
    return newest if not before else before + _WEIGHT * (newest - before)
