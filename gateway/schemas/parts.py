"""The parts of a message: texts and images by every name that clients have for them, and the others by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from gateway.schemas.common import Body, Text, is_blank
from gateway.schemas.conversation import Detail, SentImage
from gateway.schemas.mistakes import said
from glmserve.errors import InvalidInput

_TEXTS = ("text", "input_text", "output_text", "refusal")
_NO_VIDEO = "this service sees no videos yet; send single frames as image_url parts"
_NO_SOUND = "this service hears nothing; send what is said as a text part"
_NO_FILES = "files are not read; send an image as an image_url part and text as a text part"
_AN_IMAGE = 'send images as {"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}'
_ELSEWHERE = {
    "video_url": _NO_VIDEO,
    "input_video": _NO_VIDEO,
    "video": _NO_VIDEO,
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
    """A part of a message: text, or an image as an object or a plain string.

    `input_text`, `output_text` and `input_image` are the same parts as the Responses API names them.
    """

    type: Literal["text", "input_text", "output_text", "refusal", "image_url", "input_image"]
    text: str | None = None
    refusal: str | None = None
    image_url: Text | ImageUrl | None = None
    detail: _AnyDetail = None

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
            held = [name for name in ("text", "image_url") if sent.get(name) is not None]
            return {**sent, "type": held[0]} if len(held) == 1 else sent
        if isinstance(kind, str) and kind in _ELSEWHERE:
            raise said(f"is a part of type {kind}: {_ELSEWHERE[kind]}")
        return sent

    def read(self, field: str) -> str | SentImage:
        """The text or the image; `field` is the part's place in the request. Raises InvalidInput if it has none."""
        if self.type in _TEXTS:
            name = "refusal" if self.type == "refusal" else "text"
            text: str | None = getattr(self, name)
            if text is not None or name in self.model_fields_set:  # null is a blank text
                return text or ""
            raise InvalidInput(f"The field {field} is of type {self.type} but has no {name}.", f"{field}.{name}")
        if self.image_url is None:
            raise InvalidInput(f"The field {field} is of type {self.type} but has no image_url.", f"{field}.image_url")
        if isinstance(self.image_url, str):
            return SentImage(self.image_url, f"{field}.image_url", self.detail or "auto")
        return SentImage(self.image_url.url, f"{field}.image_url", self.image_url.detail or self.detail or "auto")
