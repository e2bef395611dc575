"""What both chat routes turn a request into: turns of text and images, and how the answer is to be generated."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from glmserve.limits import MAX_CALLS
from glmserve.model.chat_template import Role, ToolCall
from glmserve.model.image_processor import ImageRules
from glmserve.model.output_parser import TextRules
from glmserve.model.video_sampling import AS_THE_MODEL, FrameSampling
from glmserve.sampling_parameters import Sampling

Detail = Literal["low", "high", "auto"]


@dataclass(frozen=True)
class SentImage:
    """An image as it was sent: a file's bytes, base64, or a URL; `field` is where in the request it stood.

    In low `detail` it is made smaller than the model needs it.
    """

    data: str | bytes
    field: str = "image"
    detail: Detail = "auto"


@dataclass(frozen=True)
class SentVideo:
    """A video as it was sent: a file's bytes, base64 or a URL, or a list of `frames` and the seconds at which they are
    shown; `field` is where in the request it stood."""

    data: str | bytes = b""
    field: str = "video"
    frames: tuple[SentImage, ...] = ()
    seconds: tuple[float, ...] = ()
    sampling: FrameSampling = AS_THE_MODEL


Shown = SentImage | SentVideo


@dataclass(frozen=True)
class PixelBounds:
    """The fewest and the most pixels of an image as the model sees it, counted as the checkpoint counts them: for each
    of the frames that a still image stands for. None is the checkpoint's own bound."""

    fewest: int | None = None
    most: int | None = None

    def within(self, rules: ImageRules) -> ImageRules:
        """A checkpoint's rules within these bounds."""
        most = min(self.most or rules.max_pixels, rules.max_pixels)
        fewest = rules.min_pixels if self.fewest is None else self.fewest
        return replace(rules, min_pixels=min(fewest, most), max_pixels=most)


@dataclass(frozen=True)
class Turn:
    """What one side said; `thoughts` and `tool_calls` are an assistant's. `is_list`: the parts came as a list."""

    role: Role
    parts: tuple[str | Shown, ...]
    thoughts: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    is_list: bool = False


@dataclass(frozen=True)
class Conversation:
    """One request with every default filled in; `grammar` holds packed `AnswerRules`, or nothing.

    An answer may make at most `most_calls` calls of its `tools`; with some, it has ended with `finish_of_calls`.
    With `partial_on_timeout`, an answer whose time runs out is cut there and does not fail.
    """

    turns: tuple[Turn, ...]
    sampling: Sampling
    stop: tuple[str, ...] = ()
    thinking: bool = False
    grammar: bytes = b""
    tools: tuple[dict[str, Any], ...] = ()
    most_calls: int = MAX_CALLS
    finish_of_calls: str = "tool_calls"
    prompt_field: str = "prompt"
    partial_on_timeout: bool = False
    raw: str | tuple[int, ...] | None = None
    """A prompt as text or token ids that stands for the turns, without the chat template."""
    is_text: bool = True
    """Whether the answer to a `raw` prompt is a text as it stands, and not a chat's, with thoughts and calls apart."""
    answers: int = 1
    rules: TextRules = field(default_factory=TextRules)
    asks: bool = True
    """Whether the prompt ends with what begins an answer."""
    continues: bool = False
    """Whether the answer goes on with the last turn, which is an assistant's; then nothing `asks`."""
    bad_words: tuple[str, ...] = ()
    truncated_to: int | None = None
    """Tokens of the prompt that are kept; -1 keeps as many as leave room for the answer."""
    keeps_beginning: bool = False
    """Whether those at its beginning are kept, and not those at its end."""
    pixels: PixelBounds = field(default_factory=PixelBounds)
    frames: FrameSampling = AS_THE_MODEL
    """Which frames of a video are seen, where it does not say so itself."""
    shows_frames: bool = False
    """Whether the answer brings small pictures of the frames that were seen."""
    cache_salt: str = ""
    unknown: tuple[str, ...] = ()
    """Fields of the request that nobody here knows, in words."""

    def shown(self) -> list[Shown]:
        """All images and videos in the order they are read."""
        return [part for turn in self.turns for part in turn.parts if not isinstance(part, str)]

    def images(self) -> list[SentImage]:
        """All images in the order they are read."""
        return [part for part in self.shown() if isinstance(part, SentImage)]

    def chars(self) -> int:
        """Characters of everything that becomes the prompt: texts and thoughts, and calls and tools as JSON."""
        written = [part for turn in self.turns for part in turn.parts if isinstance(part, str)]
        written += [turn.thoughts for turn in self.turns if turn.thoughts]
        calls = [call for turn in self.turns for call in turn.tool_calls]
        written += [call.name + json.dumps(call.arguments, ensure_ascii=False) for call in calls]
        written += [json.dumps(tool, ensure_ascii=False) for tool in self.tools]
        written += [self.raw] if isinstance(self.raw, str) else []
        return sum(map(len, written))
