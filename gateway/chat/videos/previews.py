"""Small images of the frames of a video that the model sees, for people to look at."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_MOST = 64
_SIZE = (192, 108)
_QUALITY = 70


def previews(frames: Sequence[NDArray[np.uint8]], seconds: Sequence[float]) -> list[dict[str, object]]:
    """`{"second": …, "url": "data:image/jpeg;base64,…"}` of each frame u8 [3, height, width]; of many, some of them."""
    shown = [place for place in range(len(frames)) if not place or seconds[place] != seconds[place - 1]]
    if len(shown) > _MOST:
        shown = [shown[place] for place in np.linspace(0, len(shown) - 1, _MOST, dtype=int)]
    return [{"second": round(seconds[place], 3), "url": _jpeg(frames[place])} for place in shown]


def _jpeg(planes: NDArray[np.uint8]) -> str:
    image = Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))
    image.thumbnail(_SIZE)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
