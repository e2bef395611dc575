"""How long an engine's steps take, as two straight lines, in place of a device."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepTimes:
    """A decode step of n rows takes `decode_s + n * row_s` seconds, a prefill of n tokens `prefill_s + n * token_s`."""

    decode_s: float
    row_s: float
    prefill_s: float
    token_s: float

    def decode(self, rows: int) -> float:
        return self.decode_s + rows * self.row_s

    def prefill(self, tokens: int) -> float:
        return self.prefill_s + tokens * self.token_s

    def step(self, rows: int, tokens: int) -> float:
        """A step that does both reads the weights once."""
        if not tokens:
            return self.decode(rows)
        if not rows:
            return self.prefill(tokens)
        return max(self.decode_s, self.prefill_s) + rows * self.row_s + tokens * self.token_s
