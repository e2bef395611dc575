"""How long an engine's steps take, as two straight lines: what stands in for a device where there is none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepTimes:
    """Seconds of a decode step of n rows, `decode_s + n * row_s`, and of reading n prompt tokens,
    `prefill_s + n * token_s`."""

    decode_s: float
    row_s: float
    prefill_s: float
    token_s: float

    def decode(self, rows: int) -> float:
        return self.decode_s + rows * self.row_s

    def prefill(self, tokens: int) -> float:
        return self.prefill_s + tokens * self.token_s
