"""What a file was sent as, in the words in which it is refused: an image or a video."""

from __future__ import annotations

from dataclasses import dataclass

from glmserve.errors import BadImage, BadVideo, InvalidInput, TooLarge


@dataclass(frozen=True)
class SentAs:
    """One kind of file: what a host is told that it may answer with, and the error of one that cannot be read."""

    name: str
    accept: str
    error: type[InvalidInput]

    def too_large(self, max_bytes: int, field: str) -> TooLarge:
        """The error of a file that holds more bytes."""
        return TooLarge(f"The {self.name} holds more than {max_bytes} bytes.", field)


AN_IMAGE = SentAs("image", "image/*", BadImage)
A_VIDEO = SentAs("video", "video/*, image/gif, image/webp", BadVideo)
