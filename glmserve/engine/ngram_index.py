"""An index of n-grams that proposes how a sequence goes on, and the acceptance rate of its proposals."""

from __future__ import annotations

from collections.abc import Iterable

_NGRAMS = (3, 2)
"""Lengths of the n-grams that must match; the longer is tried first."""
_FORGETTING = 0.9
"""Weight of an earlier proposal relative to the next one."""
_PRIOR = 2.0
"""The rate of all sequences counts as much as this many proposals of the sequence's own."""


class AcceptanceRate:
    """The share of proposed tokens that were right; recent proposals count most."""

    def __init__(self, right: float = 0.0, wrong: float = 0.0) -> None:
        self._right, self._wrong = right, wrong

    def record(self, is_right: bool) -> None:
        self._right = _FORGETTING * self._right + is_right
        self._wrong = _FORGETTING * self._wrong + (not is_right)

    def rate(self, others: AcceptanceRate) -> float:
        """The expected rate; with few proposals so far it is close to that of `others`."""
        elsewhere = others._right / (others._right + others._wrong)
        return (self._right + _PRIOR * elsewhere) / (self._right + self._wrong + _PRIOR)


class NgramIndex:
    """The tokens of a prompt and its answer so far, and where each n-gram of them stood last."""

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        self.acceptance = AcceptanceRate()
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        self._start: int | None = None  # of the continuation; looked up once a token
        self._is_known = False
        for token in tokens:
            self.add(token)

    @property
    def next_token(self) -> int | None:
        """The proposed next token; None where the last tokens did not occur before."""
        start = self._where()
        return None if start is None else self._tokens[start]

    def add(self, token: int) -> None:
        here = len(self._tokens)
        for size in _NGRAMS:
            if here >= size:
                self._after[tuple(self._tokens[-size:])] = here
        self._tokens.append(token)
        self._is_known = False

    def continuation(self, count: int) -> list[int]:
        """The `count` tokens after the latest earlier occurrence of the last n-gram; empty if there is none.

        Where that occurrence overlaps the end, the repetition goes on.
        """
        start = self._where()
        if start is None:
            return []
        period = len(self._tokens) - start
        return [self._tokens[start + index % period] for index in range(count)]

    def _where(self) -> int | None:
        if not self._is_known:
            known = (self._after.get(tuple(self._tokens[-size:])) for size in _NGRAMS)
            self._start, self._is_known = next((start for start in known if start is not None), None), True
        return self._start
