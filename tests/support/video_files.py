"""Videos of a moving square, made with PyAV: any container, codec, rate and length."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from typing import Any

import av
import numpy as np
from PIL import Image

KINDS = (
    ("mp4", "libx264"),
    ("mp4", "libx265"),
    ("mp4", "libsvtav1"),
    ("mov", "libx264"),
    ("webm", "libvpx"),
    ("webm", "libvpx-vp9"),
    ("matroska", "libx264"),
    ("gif", "gif"),
)
"""Every container and codec that is read, by the encoder that writes it; animated WebP has a function of its own."""
_QUIET = {"libx265": {"x265-params": "log-level=none"}, "libsvtav1": {"preset": "10"}}
_PIXELS = {"gif": "rgb8"}
av.logging.set_level(None)


def scene(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """Frame by frame a white square further right, over a colour that changes: u8 [height, width, 3]."""
    frame = np.empty((height, width, 3), np.uint8)
    frame[:] = (40 + 5 * number % 160, 90, 200 - 4 * number % 160)
    left = 2 * number % max(1, width - 12)
    frame[8:20, left : left + 12] = 255
    return frame


@contextmanager
def scheduling_kept() -> Iterator[None]:
    """As root, SVT-AV1 makes the thread that encodes a real-time one, and so all that it starts later, servers and
    browsers: they would starve the machine."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


@cache
def video(
    container: str = "mp4",
    codec: str = "libx264",
    frames: int = 20,
    fps: Fraction | int = 10,
    width: int = 64,
    height: int = 48,
    rotation: int = 0,
    sound: bool = False,
    instants: tuple[int, ...] = (),
    **options: str,
) -> bytes:
    """A video file. `instants` are the milliseconds at which frames are shown, instead of a steady rate."""
    file = io.BytesIO()
    more: dict[str, Any] = {"movflags": "frag_keyframe+empty_moov"} if options.pop("fragmented", "") else {}
    with scheduling_kept(), av.open(file, "w", format=container, options=more) as made:
        stream: Any = made.add_stream(codec, rate=fps, options={**_QUIET.get(codec, {}), **options})
        stream.width, stream.height, stream.pix_fmt = width, height, _PIXELS.get(codec, "yuv420p")
        if instants:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        tone: Any = made.add_stream("aac", rate=16000) if sound else None
        for number in range(len(instants) or frames):
            frame = av.VideoFrame.from_ndarray(scene(number, width, height), format="rgb24")
            if instants:
                frame.pts, frame.time_base = instants[number], Fraction(1, 1000)
            made.mux(stream.encode(frame))
        made.mux(stream.encode())
        if tone is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 16000
            made.mux([*tone.encode(silence), *tone.encode()])
    return file.getvalue()


@cache
def animated_webp(frames: int = 8, milliseconds: int = 100, width: int = 64, height: int = 48) -> bytes:
    file = io.BytesIO()
    first, *others = (Image.fromarray(scene(number, width, height)) for number in range(frames))
    first.save(file, "WEBP", save_all=True, append_images=others, duration=milliseconds, lossless=True)
    return file.getvalue()


def decoded(data: bytes) -> list[np.ndarray]:
    """All frames as PyAV gives them, u8 [height, width, 3]."""
    with av.open(io.BytesIO(data)) as held:
        return [frame.to_ndarray(format="rgb24") for frame in held.decode(video=0)]
