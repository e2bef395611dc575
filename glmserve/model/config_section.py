"""One object of a checkpoint's JSON file, whose getters name the file and the key that is missing or makes no sense."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glmserve.errors import BadArtifact

_LARGEST = 2**31 - 1
"""No size, count or number of pixels is larger."""


@dataclass(frozen=True)
class Section:
    """Every getter raises BadArtifact."""

    name: str
    values: dict[str, Any]

    @staticmethod
    def load(path: Path) -> Section:
        """The whole file."""
        try:
            values = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise BadArtifact(f"The checkpoint has no {path.name}.") from None
        except (OSError, ValueError, RecursionError):
            raise BadArtifact(f"The checkpoint's {path.name} is not readable JSON.") from None
        if not isinstance(values, dict):
            raise BadArtifact(f"The checkpoint's {path.name} must hold a JSON object.")
        return Section(path.name, values)

    def section(self, key: str) -> Section:
        value: Any = self.values.get(key)
        if not isinstance(value, dict):
            raise BadArtifact(f"{self.name}: {key} is missing or not an object.")
        return Section(f"{self.name}: {key}", value)

    def words(self, key: str) -> list[str]:
        """A list of strings; empty when it is missing or null."""
        value: Any = self.values.get(key) or []
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise BadArtifact(f"{self.name}: {key} must be a list of strings.")
        return value

    def index(self, key: str, size: int) -> int:
        """A place among `size`."""
        value: Any = self.values.get(key)
        if not _is_integer(value) or not 0 <= value < size:
            raise BadArtifact(f"{self.name}: {key} must be an integer from 0 to {size - 1}.")
        return int(value)

    def count(self, key: str, default: int | None = None) -> int:
        """A size or a number of things."""
        value: Any = self.values.get(key, default)
        if not _is_integer(value) or not 1 <= value <= _LARGEST:
            raise BadArtifact(f"{self.name}: {key} must be a positive integer.")
        return int(value)

    def positive(self, key: str, default: float | None = None) -> float:
        value: Any = self.values.get(key, default)
        if not _is_number(value) or value <= 0:
            raise BadArtifact(f"{self.name}: {key} must be a positive number.")
        return float(value)

    def three_counts(self, key: str, default: tuple[int, int, int]) -> tuple[int, int, int]:
        """Three integers, none of them negative."""
        value: Any = self.values.get(key, list(default))
        if not _are_three(value) or not all(_is_integer(one) and 0 <= one <= _LARGEST for one in value):
            raise BadArtifact(f"{self.name}: {key} must be three integers, none of them negative.")
        return value[0], value[1], value[2]

    def three_numbers(self, key: str) -> tuple[float, float, float]:
        value: Any = self.values.get(key)
        if not _are_three(value) or not all(map(_is_number, value)):
            raise BadArtifact(f"{self.name}: {key} must be three numbers.")
        return float(value[0]), float(value[1]), float(value[2])


def _are_three(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number: Python's JSON also reads NaN and Infinity."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
