"""Reads JSON whose values were counted first: ten bytes of it may weigh three hundred once they are objects."""

from __future__ import annotations

import re
from typing import Any

import pydantic_core

from glmserve.errors import InvalidInput

MAX_JSON_VALUES = 120_000
"""A prompt of 200,000 characters can hold 100,000; as lists they weigh 8 MB."""

_REST_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_MARKS = (b",", b"[", b"{")


def parse_json(text: bytes | str) -> Any:
    """What the text says; raises ValueError when it is no JSON, and InvalidInput when it holds too many values.

    The parser itself gives up at 200 lists or objects inside one another.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if _marks(data, 0, len(data)) > MAX_JSON_VALUES:  # also those within strings, where any number may stand
        _count_values(data)
    return pydantic_core.from_json(text, allow_inf_nan=False)


def _count_values(data: bytes) -> None:
    """Raises InvalidInput once there were too many marks outside strings; stops early where it is no JSON."""
    at = marks = strings = 0
    while strings <= 2 * marks + 1:  # between two strings of one object or list stands a mark
        quote = data.find(b'"', at)
        marks += _marks(data, at, len(data) if quote < 0 else quote)
        if marks > MAX_JSON_VALUES:
            raise InvalidInput(
                f"The JSON in the request holds more than {MAX_JSON_VALUES:,} values; at most as many are accepted."
            )
        rest = _REST_OF_STRING.match(data, quote + 1) if quote >= 0 else None
        if rest is None:
            return
        at, strings = rest.end(), strings + 1


def _marks(data: bytes, begin: int, end: int) -> int:
    return sum(data.count(mark, begin, end) for mark in _MARKS)
