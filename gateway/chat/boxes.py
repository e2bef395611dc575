"""Places that an answer names, in pixels of the images that were sent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from glmserve.model.boxes import Box


@dataclass(frozen=True)
class PlacedBox:
    """`image` counts the request's images from 0; `box` is x1, y1, x2, y2 in pixels of it as it was sent, upright."""

    image: int
    box: tuple[int, int, int, int]
    label: str

    def as_json(self) -> dict[str, Any]:
        return {"image": self.image, "box": list(self.box), "label": self.label}


def placed(boxes: Iterable[Box], image_sizes: tuple[tuple[int, int], ...]) -> tuple[PlacedBox, ...]:
    """Each box in the image that the answer names beside it, else in the last one; `image_sizes` are width, height."""
    if not image_sizes:
        return ()
    made = []
    for box in boxes:
        is_named = box.image is not None and box.image <= len(image_sizes)
        image = (box.image or 1) - 1 if is_named else len(image_sizes) - 1
        made.append(PlacedBox(image, box.pixels(*image_sizes[image]), box.label))
    return tuple(made)
