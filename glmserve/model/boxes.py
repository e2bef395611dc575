"""Reads the places that an answer names: GLM writes `<|begin_of_box|>[[x1,y1,x2,y2]]<|end_of_box|>`.

The numbers are thousandths of the image's width and height, counted from its top left corner. Box tokens stand around
other final answers too, such as a number that was read; those name no place.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

BOX_OPEN, BOX_CLOSE = "<|begin_of_box|>", "<|end_of_box|>"
MOST_BOXES = 256  # of one answer; later ones stay text only
_SCALE = 1000
_MOST_BOXED_CHARS = 16_384
_MOST_LABEL_CHARS = 80
_FOUR_NUMBERS = re.compile(r"\[\s*" + r"\s*,\s*".join([r"(\d{1,4}(?:\.\d{1,6})?)"] * 4) + r"\s*\]")
_LABEL_NAMES = ("label", "name", "category", "text")
_BOX_NAMES = ("bbox_2d", "bbox", "box", "box_2d")
_CLAUSE_END = re.compile(r"[.,;:!?()\n。，；：！？（）、]+")
_LEADS_TO_A_PLACE = re.compile(r"(?:\s+(?:is|are|was|at|in|located|found))+$|(?:位于|位置是|的位置在|在)$")
_WHICH_IMAGE = re.compile(r"\b(?:image|picture)\s*#?(\d{1,3})\b|(?:图片|图像|图|第)\s*(\d{1,3})", re.IGNORECASE)


@dataclass(frozen=True)
class Box:
    """One place: `corners` are x1, y1, x2, y2 from 0 to 1000 of the image as the model saw it.

    `label` is what the answer calls it, empty where it does not say. `image` is the number (from 1) of the image that
    the answer names beside it, None where it names none.
    """

    corners: tuple[float, float, float, float]
    label: str = ""
    image: int | None = None

    def pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """The corners in pixels of an image of this size, which may have any other size than the one the model saw."""
        x1, y1, x2, y2 = self.corners
        across, down = width / _SCALE, height / _SCALE
        return round(x1 * across), round(y1 * down), round(x2 * across), round(y2 * down)


class BoxReader:
    """Collects the boxes of one answer from its text and its box tokens, as they come."""

    def __init__(self) -> None:
        self.boxes: list[Box] = []
        self._before = ""  # what led to the box, as far as a label reaches
        self._inside: str | None = None

    def push(self, text: str) -> None:
        """Text of the answer, without control tokens."""
        if self._inside is None:
            self._before = (self._before + text)[-4 * _MOST_LABEL_CHARS :]
        elif len(self._inside) <= _MOST_BOXED_CHARS:
            self._inside += text

    def steer(self, control: str) -> None:
        """A control token; those of boxes begin and end one."""
        if control == BOX_OPEN:
            self._inside = ""
        elif control == BOX_CLOSE and self._inside is not None:
            if len(self._inside) <= _MOST_BOXED_CHARS:
                found = boxes_in(self._inside, self._before)
                self.boxes += found[: MOST_BOXES - len(self.boxes)]
            self._before, self._inside = "", None


def boxes_in(boxed: str, before: str = "") -> list[Box]:
    """The places in the text between two box tokens; `before` is the text that led to it."""
    label, image = _label_of(before), _image_of(before)
    described = _described(boxed)
    if described:
        return [Box(corners, name or label, image) for corners, name in described]
    found = (_corners(match) for match in _FOUR_NUMBERS.findall(boxed))
    return [Box(corners, label, image) for corners in found if corners]


def _corners(numbers: Any) -> tuple[float, float, float, float] | None:
    """Four numbers as corners; None where they span no area of an image."""
    if not isinstance(numbers, list | tuple) or len(numbers) != 4:
        return None
    try:
        x1, y1, x2, y2 = (float(number) for number in numbers)
    except (TypeError, ValueError):
        return None
    if 0 <= x1 < x2 <= _SCALE and 0 <= y1 < y2 <= _SCALE:
        return x1, y1, x2, y2
    return None


def _described(boxed: str) -> list[tuple[tuple[float, float, float, float], str]]:
    """Boxes with their labels where the model wrote JSON objects; empty otherwise."""
    try:
        document = json.loads(boxed)
    except (ValueError, RecursionError):
        return []
    entries = document if isinstance(document, list) else [document]
    found = []
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        corners = next((entry[name] for name in _BOX_NAMES if name in entry), None)
        label = next((entry[name] for name in _LABEL_NAMES if isinstance(entry.get(name), str)), "")
        if isinstance(corners, list) and len(corners) == 1:
            corners = corners[0]
        read = _corners(corners)
        if read:
            found.append((read, label[:_MOST_LABEL_CHARS]))
    return found


def _label_of(before: str) -> str:
    """The last clause that led to a box, without the words that only lead to it."""
    clauses = [clause.strip(" \t*_`-#>\"'") for clause in _CLAUSE_END.split(before)]
    said = next((clause for clause in reversed(clauses) if clause), "")
    return _LEADS_TO_A_PLACE.sub("", said).strip()[-_MOST_LABEL_CHARS:]


def _image_of(before: str) -> int | None:
    named = _WHICH_IMAGE.findall(before)
    if not named:
        return None
    return int(next(digits for digits in named[-1] if digits)) or None
