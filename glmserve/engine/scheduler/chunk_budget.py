"""How many prompt tokens the next step may prefill beside the decoded rows, learnt from the times of past steps."""

from __future__ import annotations

from collections import deque
from statistics import median

_REMEMBERED = 9
"""The median of this many newest steps of a kind counts, so one slow step changes nothing."""
_LEAST_SHARE = 0.25
"""A prompt token costs at least this share of an even part of its step, however short the step was."""
LONGEST_S = 5.0
"""A chunk that nothing decodes beside takes about so long at most: between two chunks requests come, leave and end."""
_STALL = 0.4
"""Share of a decode step's time that prefill may add for each request that waits for its first token.

Well below 1, so that one long prompt at most doubles the time between the others' tokens, noise included.
"""


class ChunkBudget:
    """Turns step times into the next chunk's size; owned by the engine's thread."""

    def __init__(self, min_chunk_tokens: int) -> None:
        """`min_chunk_tokens` prompt tokens cost about as much as one decode step, so no chunk is shorter."""
        self._min_chunk_tokens = min_chunk_tokens
        self._decode_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._token_s: deque[float] = deque(maxlen=_REMEMBERED)

    def observe_step(self, rows: int, tokens: int, seconds: float) -> None:
        """Records the time of a step with `rows` decoded rows and `tokens` prefilled tokens.

        The time beyond that of a decode step is the cost of its prompt tokens.
        """
        if not tokens:
            self._decode_s.append(seconds)
        elif not rows:
            self._token_s.append(seconds / tokens)
        elif self._decode_s:
            least_s = _LEAST_SHARE * seconds / (rows + tokens)
            self._token_s.append(max(least_s, (seconds - median(self._decode_s)) / tokens))

    def most_tokens(self, most: int) -> int:
        """`most`, or on a slow machine what takes a few seconds."""
        if not self._token_s:
            return most
        return min(most, max(self._min_chunk_tokens, int(LONGEST_S / median(self._token_s))))

    def chunk_tokens(self, decoding: int, beginning: int, most: int) -> int:
        """Prompt tokens for the next step, with `decoding` sequences and `beginning` that wait for their first token.

        `most_tokens` where nothing decodes; otherwise as many as take 0.4 of a decode step for each that waits.
        """
        if not decoding:
            return self.most_tokens(most)
        if not self._token_s or not self._decode_s:
            return min(most, self._min_chunk_tokens)
        allowed_s = _STALL * median(self._decode_s) * max(1, beginning)
        return min(most, max(self._min_chunk_tokens, int(allowed_s / median(self._token_s))))
