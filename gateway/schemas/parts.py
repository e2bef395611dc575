"""The parts of a message: texts, images and videos by every name that clients have for them, and the others by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from gateway.schemas.common import Body, Text, is_blank
from gateway.schemas.conversation import Detail, SentImage, SentVideo, Shown
from gateway.schemas.mistakes import said
from gateway.schemas.videos import Fps, FrameCount, Frames, Seconds, VideoObject
from glmserve.errors import InvalidInput

_VIDEOS = ("video_url", "input_video", "video")
_TEXTS = ("text", "input_text", "output_text", "refusal")
_NO_SOUND = "this service hears nothing; send what is said as a text part"
_NO_FILES = "files are not read; send an image as an image_url part and text as a text part"
_AN_IMAGE = 'send images as {"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}'
_ELSEWHERE = {
    "input_audio": _NO_SOUND,
    "audio_url": _NO_SOUND,
    "audio": _NO_SOUND,
    "file": _NO_FILES,
    "input_file": _NO_FILES,
    "document": _NO_FILES,
    "image": _AN_IMAGE,
    "image_file": _AN_IMAGE,
    "image_embeds": _AN_IMAGE,
    "tool_use": "calls of an assistant stand in its message's tool_calls",
    "tool_call": "calls of an assistant stand in its message's tool_calls",
    "tool_result": "a tool's result is a message of role tool",
    "thinking": "an assistant's thoughts stand in its message's reasoning_content",
    "reasoning": "an assistant's thoughts stand in its message's reasoning_content",
}
"""What to do instead of sending such a part."""


_AnyDetail = Annotated[Detail | None, BeforeValidator(lambda sent: None if is_blank(sent) else sent)]


class ImageUrl(Body):
    """An image as OpenAI's object names it."""

    url: Text
    detail: _AnyDetail = None


class Part(Body):
    """A part of a message: text, or an image or a video as an object or a plain string.

    `input_text`, `output_text` and `input_image` are the same parts as the Responses API names them.
    """

    type: Literal[
        "text", "input_text", "output_text", "refusal", "image_url", "input_image", "video_url", "input_video", "video"
    ]
    text: str | None = None
    refusal: str | None = None
    image_url: Text | ImageUrl | None = None
    detail: _AnyDetail = None
    video_url: Text | VideoObject | None = None
    video: Text | Frames | VideoObject | None = None
    frames: Frames | None = None
    timestamps: Seconds | None = None
    fps: Fps | None = None
    num_frames: FrameCount | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, sent: Any) -> Any:
        """A plain string is text, and a part without a type is what it holds; what we cannot read is told so."""
        if isinstance(sent, str):
            return {"type": "text", "text": sent}
        if not isinstance(sent, dict):
            return sent
        kind = sent.get("type")
        if kind is None:
            held = [
                name for name in ("text", "image_url", "video_url", "video", "frames") if sent.get(name) is not None
            ]
            named = "video" if held == ["frames"] else held[0] if len(held) == 1 else None
            return {**sent, "type": named} if named else sent
        if isinstance(kind, str) and kind in _ELSEWHERE:
            raise said(f"is a part of type {kind}: {_ELSEWHERE[kind]}")
        return sent

    def read(self, field: str) -> str | Shown:
        """What the part holds; `field` is its place in the request. Raises InvalidInput if it holds nothing."""
        if self.type in _TEXTS:
            name = "refusal" if self.type == "refusal" else "text"
            text: str | None = getattr(self, name)
            if text is not None or name in self.model_fields_set:  # null is a blank text
                return text or ""
            raise InvalidInput(f"The field {field} is of type {self.type} but has no {name}.", f"{field}.{name}")
        if self.type in _VIDEOS:
            return self._video(field)
        if self.image_url is None:
            raise InvalidInput(f"The field {field} is of type {self.type} but has no image_url.", f"{field}.image_url")
        if isinstance(self.image_url, str):
            return SentImage(self.image_url, f"{field}.image_url", self.detail or "auto")
        return SentImage(self.image_url.url, f"{field}.image_url", self.image_url.detail or self.detail or "auto")

    def _video(self, field: str) -> SentVideo:
        held = {name: getattr(self, name) for name in ("video_url", "video", "frames") if getattr(self, name)}
        if not held:
            raise InvalidInput(
                f"The field {field} is of type {self.type} but has no video_url, and no frames.", f"{field}.video_url"
            )
        if len(held) > 1:
            raise InvalidInput(f"The field {field} holds {' and '.join(held)}; send one of them.", field)
        ((name, sent),) = held.items()
        whole = VideoObject(timestamps=self.timestamps, fps=self.fps, num_frames=self.num_frames)
        if isinstance(sent, VideoObject):
            beside = {key: value for key, value in whole if value is not None and getattr(sent, key) is None}
            return sent.model_copy(update=beside).read(f"{field}.{name}")
        if isinstance(sent, str):
            return whole.model_copy(update={"url": sent}).read(f"{field}.{name}")
        return whole.model_copy(update={"frames": sent}).read(field)
