"""What was read of a dear body, packed for its worker; a file in it travels as bytes, so that nobody reads it again."""

from __future__ import annotations

import io
import pickle
from contextlib import suppress
from dataclasses import replace
from typing import Any

from gateway.reading.base64_file import SMALL_CHARS, bytes_of_base64
from gateway.schemas.conversation import SentImage, SentVideo
from glmserve.errors import InvalidInput, TooLarge


def packed(result: Any) -> bytes:
    """The pickled result."""
    file = io.BytesIO()
    _Packer(file, pickle.HIGHEST_PROTOCOL).dump(result)
    return file.getvalue()


class _Packer(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        """Of an image or video in base64; one that is no file stays as it was sent, for whoever reads it to refuse."""
        if isinstance(value, SentImage | SentVideo) and isinstance(value.data, str) and len(value.data) > SMALL_CHARS:
            with suppress(InvalidInput, TooLarge):
                return replace(value, data=bytes_of_base64(value.data, len(value.data))).__reduce_ex__(
                    pickle.HIGHEST_PROTOCOL
                )
        return NotImplemented
