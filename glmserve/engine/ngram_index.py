"""What an answer may go on with: what followed its last words when they came before, and how often that was right."""

from __future__ import annotations

from collections.abc import Iterable

_NGRAMS = (3, 2)
"""Words that must agree for what followed them to be expected; the longer ones are looked for first."""
_FORGETTING = 0.9
"""What an earlier expectation counts of the next one."""
_PRIOR = 2.0
"""Other answers count as much as so many expectations of an answer's own."""


class AcceptanceRate:
    """How many expected tokens came and how many did not; what is long ago counts little."""

    def __init__(self, right: float = 0.0, wrong: float = 0.0) -> None:
        self._right, self._wrong = right, wrong

    def note(self, is_right: bool) -> None:
        self._right = _FORGETTING * self._right + is_right
        self._wrong = _FORGETTING * self._wrong + (not is_right)

    def chance(self, others: AcceptanceRate) -> float:
        """That the next one is right; where little is known yet, what it is for others."""
        elsewhere = others._right / (others._right + others._wrong)
        return (self._right + _PRIOR * elsewhere) / (self._right + self._wrong + _PRIOR)


class NgramIndex:
    """The tokens of a prompt and its answer so far, and where each few of them were last."""

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        self.luck = AcceptanceRate()
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        self._start: int | None = None  # of what followed; looked up once a token
        self._is_known = False
        for token in tokens:
            self.add(token)

    @property
    def guess(self) -> int | None:
        """The next token, if there is anything to go by."""
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
        """`count` tokens that followed the newest earlier place where they ended as they do now; none if there is none.

        Where that place overlaps the end, what repeats is taken to go on repeating.
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
