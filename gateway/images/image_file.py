"""What is known of an image before it is decoded, and the two ways in which its structure can be refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

UPRIGHT = 1
"""The orientation of an image that is shown as it is stored."""


@dataclass(frozen=True)
class ImageFile:
    """An image file of which only the structure was read.

    `parts` are, one after the other, a file that holds what decoding needs and nothing else: no comments, no
    profiles, no second frame. `width` and `height` are as stored; `orientation` is EXIF's, 1 to 8.
    """

    kind: str  # as Pillow calls the format
    width: int
    height: int
    parts: Sequence[bytes | memoryview]
    orientation: int = UPRIGHT
    buffer_bytes: int = 0  # what its decoder must hold beside the pixels
    scales: bool = False  # whether its decoder can halve, quarter and eighth the sides while it decodes


class Undecodable(ValueError):
    """The bytes are no image of a kind that is accepted, or one that breaks off."""


class Refused(ValueError):
    """A whole image, built so that it costs more than it shows; the message tells the client why."""


class Budget:
    """Counts steps of one kind, and refuses once there were more than `most`."""

    def __init__(self, most: int, what: str) -> None:
        self.left = most
        self._most = most
        self._what = what

    def spend(self, count: int = 1) -> None:
        self.left -= count
        if self.left < 0:
            raise too_many(self._most, self._what)


def too_many(most: int, what: str) -> Refused:
    """The refusal of an image that has more than `most` of something."""
    return Refused(f"The image has more than {most:,} {what}; at most {most:,} are accepted.")
