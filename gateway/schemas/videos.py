"""A video in a request: one file, or a list of images with the seconds at which they are shown."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from gateway.schemas.common import Body, Text
from gateway.schemas.conversation import SentImage, SentVideo
from glmserve.errors import InvalidInput
from glmserve.limits import MAX_VIDEO_FRAMES
from glmserve.model.video_sampling import AS_THE_MODEL, FrameSampling

_LEAST_FPS, _MOST_FPS = 0.001, 240
_MOST_SECONDS = 10**9  # thirty years, which a time lapse does not reach
_JPEGS = "data:video/jpeg;base64,"
"""Begins a row of JPEGs in base64, as vLLM's clients send frames."""
Fps = Annotated[float, Field(ge=_LEAST_FPS, le=_MOST_FPS)]
FrameCount = Annotated[int, Field(ge=1, le=MAX_VIDEO_FRAMES)]
_Second = Annotated[float, Field(ge=0, le=_MOST_SECONDS)]


class Frame(Body):
    """A frame of a video, as an object."""

    url: Text


Frames = Annotated[list[Text | Frame], Field(min_length=1, max_length=MAX_VIDEO_FRAMES, fail_fast=True)]
Seconds = Annotated[list[_Second], Field(min_length=1, max_length=MAX_VIDEO_FRAMES, fail_fast=True)]


class VideoObject(Body):
    """A video's file or its frames, and which of them are to be seen."""

    url: Text | None = None
    frames: Frames | None = None
    timestamps: Seconds | None = None
    fps: Fps | None = None
    num_frames: FrameCount | None = None

    def read(self, field: str) -> SentVideo:
        """Raises InvalidInput where it holds no video, or one that says two things."""
        asked = chosen(self.fps, self.num_frames, field)
        if self.frames is not None:
            return self._listed(self.frames, field, asked)
        if self.url is None:
            raise InvalidInput(f"The field {field} must hold a url, or a list of frames.", field)
        if self.timestamps is not None:
            raise InvalidInput(
                f"The field {field} has timestamps and no frames: a file knows its own.", f"{field}.timestamps"
            )
        if self.url[: len(_JPEGS)].lower() == _JPEGS:
            return VideoObject(frames=self._jpegs(field), fps=self.fps).read(field)
        return SentVideo(self.url, field, sampling=asked)

    def _jpegs(self, field: str) -> list[Text | Frame]:
        assert self.url is not None
        packed = self.url[len(_JPEGS) :].split(",", MAX_VIDEO_FRAMES)
        if len(packed) > MAX_VIDEO_FRAMES or not all(packed):
            raise InvalidInput(
                f"The field {field} must be a row of 1 to {MAX_VIDEO_FRAMES} JPEGs in base64, separated by commas.",
                field,
            )
        return list(packed)

    def _listed(self, frames: list[Text | Frame], field: str, asked: FrameSampling) -> SentVideo:
        if self.url is not None:
            raise InvalidInput(f"The field {field} holds both a file and frames; send one of them.", field)
        if self.num_frames is not None:
            raise InvalidInput(
                f"The field {field} has num_frames and frames: every frame of the list is seen.",
                f"{field}.num_frames",
            )
        seconds = self.timestamps or []
        if seconds and len(seconds) != len(frames):
            raise InvalidInput(
                f"The field {field} has {len(frames)} frames and {len(seconds)} timestamps; each frame needs one.",
                f"{field}.timestamps",
            )
        if sorted(seconds) != seconds:
            raise InvalidInput(f"The timestamps of {field} must ascend.", f"{field}.timestamps")
        images = [
            SentImage(frame if isinstance(frame, str) else frame.url, f"{field}.frames[{place}]")
            for place, frame in enumerate(frames)
        ]
        return SentVideo(b"", field, tuple(images), tuple(seconds), asked)


def chosen(fps: float | None, frames: int | None, field: str) -> FrameSampling:
    """What is asked of a video; raises InvalidInput where a rate and a number are."""
    if fps is not None and frames is not None:
        raise InvalidInput(f"The field {field} has both fps and num_frames; send one of them.", field)
    return AS_THE_MODEL if fps is None and frames is None else FrameSampling(fps, frames)


def video_of(sent: Any, field: str) -> SentVideo:
    """A video as text, as a list of frames, or as an object."""
    if isinstance(sent, str):
        return VideoObject(url=sent).read(field)
    return VideoObject(frames=sent).read(field) if isinstance(sent, list) else sent.read(field)
