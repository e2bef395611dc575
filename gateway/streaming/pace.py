"""How fast prompt and answer go, in the fields of llama.cpp's `timings`."""

from __future__ import annotations

import time

from gateway.chat.generation import Piece


class Pace:
    """Clocks one streamed answer from the moment it is made; several answers to a request count together."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._first_s: float | None = None
        self._tokens = 0

    def add(self, piece: Piece) -> None:
        """Counts what has come."""
        tokens = sum(len(each.tokens) for each in piece.pieces)
        if tokens and self._first_s is None:
            self._first_s = time.monotonic()
        self._tokens += tokens

    def timings(self, prompt_tokens: int) -> dict[str, float]:
        """The time to the first token, in which the prompt waited and was read, and that of the tokens since."""
        now_s = time.monotonic()
        first_s = now_s if self._first_s is None else self._first_s
        prompt = of_stage("prompt", prompt_tokens, round((first_s - self._began_s) * 1000, 1))
        return prompt | of_stage("predicted", self._tokens, round((now_s - first_s) * 1000, 1))


def of_stage(name: str, tokens: int, ms: float) -> dict[str, float]:
    """The fields of the stage `prompt` or `predicted`."""
    return {
        f"{name}_n": tokens,
        f"{name}_ms": ms,
        f"{name}_per_token_ms": round(ms / tokens, 3) if tokens else 0.0,
        f"{name}_per_second": round(tokens / ms * 1000, 3) if ms > 0 else 0.0,
    }
