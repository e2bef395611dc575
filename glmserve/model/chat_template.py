"""Messages become token ids through the checkpoint's own chat template, with users' text kept harmless.

A control token that a user types (`<|image|>`, `<|assistant|>`, `/nothink` …) must not become one. Each such string is
swapped for one private-use character before the template runs and encoded as plain characters after it, so text without
control tokens is tokenised exactly as `transformers` does it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import jinja2
import numpy as np
from jinja2.ext import loopcontrols
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from glmserve.errors import BadArtifact, InvalidInput, PromptTooLong
from glmserve.model.image_processor import Grid
from glmserve.model.tokenizer import Tokenizer

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
_PROCESSOR_OF_41V = "Glm4vProcessor"
_LEFT_OUT = "Chat templates leave out images and videos of some messages, such as a tool's: send them as user."
_VIDEO, _IMAGE = "<|video|>", "<|begin_of_image|><|image|><|end_of_image|>"
_STAND_IN_FIRST, _STAND_IN_LAST = 0xF0000, 0xFFFFD  # Supplementary Private Use Area-A
_PIECE_CHARS = 4096
Role = Literal["system", "user", "assistant", "tool"]
_STAND_IN = re.compile(f"([{chr(_STAND_IN_FIRST)}-{chr(_STAND_IN_LAST)}])")


@dataclass(frozen=True)
class ImagePart:
    """The place of the next image inside a message."""


@dataclass(frozen=True)
class VideoPart:
    """The place of the next video inside a message; `seconds` are when each two of its frames are shown."""

    seconds: tuple[float, ...]


@dataclass(frozen=True)
class ToolCall:
    """A function that the model asks for, and its arguments by name."""

    name: str
    arguments: dict[str, Any]


Part = str | ImagePart | VideoPart


@dataclass(frozen=True)
class Message:
    """One turn: a role, and text, images and videos in order; thoughts and calls are an assistant's.

    `is_list` says that the parts were sent as a list: templates render a tool's result otherwise then.
    """

    role: Role
    parts: tuple[Part, ...]
    thoughts: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    is_list: bool = False


class PromptBuilder:
    """Renders and tokenises prompts of one checkpoint; safe to share between threads.

    `thinks` says whether its answers may hold thoughts, asked for or not: some models have no switch for them.
    """

    def __init__(
        self,
        template: str,
        tokenizer: Tokenizer,
        image_token_id: int,
        merge_size: int,
        in_whole_seconds: bool = False,
    ) -> None:
        """`in_whole_seconds`: the times of a video's frames are written so, as GLM-4.1V's processor does."""
        self.source = template
        self._template, variables = _compiled(template)
        self._in_whole_seconds = in_whole_seconds
        self.takes_tools = "tools" in variables
        self.takes_videos = _VIDEO in template and _VIDEO in tokenizer.control_tokens
        self.thinks = "enable_thinking" in variables or THINK_OPEN in tokenizer.control_tokens
        self._tokenizer = tokenizer
        self._image_token_id = image_token_id
        self._merge_size = merge_size
        names = sorted(tokenizer.control_tokens, key=len, reverse=True)
        self._unsafe = _any_of(names)
        self._longest = max(map(len, names), default=1)

    @staticmethod
    def read(folder: Path, tokenizer: Tokenizer, image_token_id: int, merge_size: int) -> PromptBuilder:
        """The builder for a checkpoint or build folder."""
        try:
            template = (folder / "chat_template.jinja").read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            raise BadArtifact("The checkpoint has no readable chat_template.jinja.") from None
        is_older = _processor_of(folder) == _PROCESSOR_OF_41V
        return PromptBuilder(template, tokenizer, image_token_id, merge_size, is_older)

    def build(
        self,
        messages: list[Message],
        grids: list[Grid],
        thinking: bool | None,
        tools: Sequence[dict[str, Any]] = (),
        asks: bool = True,
        continues: bool = False,
        most_tokens: int | None = None,
    ) -> np.ndarray:
        """Token ids i64 [tokens] that ask for an answer, each image expanded to one token for each merged block.

        Without `asks` nothing begins an answer. With `continues` the prompt ends with the text of the last message.
        `grids` are those of the messages' images, and of each two frames of their videos, in order; `thinking` None
        leaves the template's own default; `tools` are descriptions of functions as JSON values. Raises PromptTooLong
        for a text of far more than `most_tokens`, without turning all of it into tokens, and InvalidInput when a
        message cannot be rendered, naming no field: what a caller calls messages is its own matter.
        """
        if tools and not self.takes_tools:
            raise InvalidInput("The chat template of this model takes no tools.", "tools")
        videos = [part for message in messages for part in message.parts if isinstance(part, VideoPart)]
        if videos and not self.takes_videos:
            raise InvalidInput("The chat template of this model takes no videos: send single frames as images.")
        hidden: list[str] = []
        values: dict[str, Any] = {"messages": [self._message(m, hidden) for m in messages]}
        if tools:
            values["tools"] = [self._neutral_json(tool, hidden) for tool in tools]
        if thinking is not None:
            values["enable_thinking"] = thinking
        try:
            text = self._template.render(add_generation_prompt=asks and not continues, **values)
        except Exception as error:  # a template is a foreign program, run on what the caller sent
            raise InvalidInput("These messages do not fit the model's chat template.") from error
        if continues:
            text = _until_the_end_of(values["messages"][-1]["content"], text)
        return self._expand(
            self._encode(_with_frames(text, videos, self._in_whole_seconds), hidden, most_tokens), grids
        )

    def _message(self, message: Message, hidden: list[str]) -> dict[str, Any]:
        message = _with_thoughts_apart(message)
        values: dict[str, Any] = {"role": message.role, "content": self._content(message, hidden)}
        if message.thoughts is not None:
            values["reasoning_content"] = self._neutral(message.thoughts, hidden)
        if message.tool_calls:
            calls = [{"name": call.name, "arguments": call.arguments} for call in message.tool_calls]
            values["tool_calls"] = self._neutral_json(calls, hidden)
        return values

    def _neutral_json(self, value: Any, hidden: list[str]) -> Any:
        """The same JSON value with every string in it, keys too, made harmless."""
        if isinstance(value, str):
            return self._neutral(value, hidden)
        if isinstance(value, dict):
            return {self._neutral(name, hidden): self._neutral_json(inner, hidden) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._neutral_json(inner, hidden) for inner in value]
        return value

    def _content(self, message: Message, hidden: list[str]) -> str | list[dict[str, str]]:
        parts = [
            {"type": "text", "text": self._neutral(part, hidden)}
            if isinstance(part, str)
            else {"type": "image" if isinstance(part, ImagePart) else "video"}
            for part in _join_texts(message.parts)
        ]
        if not parts:
            return ""
        if message.is_list and message.role == "tool":
            return parts
        return parts[0]["text"] if len(parts) == 1 and "text" in parts[0] else parts

    def _neutral(self, text: str, hidden: list[str]) -> str:
        def swap(match: re.Match[str]) -> str:
            hidden.append(match.group())
            if len(hidden) > _STAND_IN_LAST - _STAND_IN_FIRST:
                raise InvalidInput("The prompt holds too many control tokens.")
            return chr(_STAND_IN_FIRST + len(hidden) - 1)

        kept, at = [], 0
        while at < len(text):  # piece by piece, for another thread may go on between two
            until = at + _PIECE_CHARS
            found = self._unsafe.search(text, at, until + self._longest)
            if found is None or found.start() >= until:
                kept.append(text[at:until])
                at = until
            else:
                kept += [text[at : found.start()], swap(found)]
                at = found.end()
        return "".join(kept)

    def _encode(self, text: str, hidden: list[str], most_tokens: int | None) -> list[int]:
        ids: list[int] = []
        plain: dict[str, list[int]] = {}
        for piece in _STAND_IN.split(text):
            if most_tokens is not None and (
                len(ids) > 2 * most_tokens or self._tokenizer.is_far_longer(piece, most_tokens)
            ):
                raise PromptTooLong(f"The prompt needs more than {most_tokens} tokens.")
            if _STAND_IN.fullmatch(piece):
                control = hidden[ord(piece) - _STAND_IN_FIRST]
                if control not in plain:
                    plain[control] = self._tokenizer.encode_plain(control)
                ids += plain[control]
            elif piece:
                ids += self._tokenizer.encode(piece)
        return ids

    def _expand(self, ids: list[int], grids: list[Grid]) -> np.ndarray:
        counts = np.ones(len(ids), np.int64)
        places = [i for i, token in enumerate(ids) if token == self._image_token_id]
        if len(places) != len(grids):
            raise InvalidInput(
                f"The prompt has {len(places)} places for {len(grids)} images and moments of videos. {_LEFT_OUT}"
            )
        for place, grid in zip(places, grids, strict=True):
            counts[place] = grid.tokens(self._merge_size)
        return np.repeat(np.asarray(ids, np.int64), counts)


def _any_of(names: list[str]) -> re.Pattern[str]:
    """Finds the first of these names, which come longest first, or a stand-in.

    Only a pattern that begins with a class of characters is searched for without trying every name at every character:
    a tenth of the time.
    """
    rests: dict[str, list[str]] = {}
    for name in names:
        rests.setdefault(name[0], []).append(name[1:])
    stand_in = _STAND_IN.pattern[1:-1]
    begins = f"[{''.join(map(re.escape, rests))}{stand_in[1:]}"
    named = [f"(?<={re.escape(first)})(?:{'|'.join(map(re.escape, rest))})" for first, rest in rests.items()]
    return re.compile(f"{begins}(?:{'|'.join([*named, f'(?<={stand_in})'])})")


def _with_thoughts_apart(message: Message) -> Message:
    """The thoughts in an assistant's text, as some clients send them back, taken out of it as templates do: their marks
    would become ordinary characters before the template sees them."""
    parts = _join_texts(message.parts)
    if message.role != "assistant" or message.thoughts is not None or len(parts) != 1:
        return message
    text = parts[0]
    if not isinstance(text, str) or THINK_CLOSE not in text:
        return message
    thoughts = text.split(THINK_CLOSE)[0].rstrip("\n").split(THINK_OPEN)[-1].lstrip("\n")
    content = text.split(THINK_CLOSE)[-1].lstrip("\n")
    return replace(message, parts=(content,), thoughts=thoughts)


def _processor_of(folder: Path) -> str | None:
    """The name of the checkpoint's processor; None where it has none."""
    try:
        named = json.loads((folder / "preprocessor_config.json").read_text("utf-8")).get("processor_class")
    except (OSError, ValueError, AttributeError):
        return None
    return named if isinstance(named, str) else None


def _with_frames(text: str, videos: list[VideoPart], in_whole_seconds: bool) -> str:
    """Each video's place filled with an image for each two of its frames, and the second at which they are shown."""
    head, *rests = text.split(_VIDEO) if videos else [text]
    if len(rests) != len(videos):
        raise InvalidInput(f"The prompt has {len(rests)} places for {len(videos)} videos. {_LEFT_OUT}")
    times = ([str(int(at)) if in_whole_seconds else f"{at:.1f} seconds" for at in video.seconds] for video in videos)
    shown = ("".join(_IMAGE + time for time in of_video) for of_video in times)
    return head + "".join(frames + rest for frames, rest in zip(shown, rests, strict=True))


def _until_the_end_of(content: str | list[dict[str, str]], text: str) -> str:
    """The rendered text up to where the last message's own text ends, as `transformers` cuts it: with the white space
    at its end only where the template keeps that. Raises InvalidInput where there is no such text."""
    if not isinstance(content, str):
        content = next((part["text"] for part in reversed(content) if "text" in part), "")
    at = text.rfind(content.strip())
    if not content.strip() or at < 0:
        raise InvalidInput("The last message holds no text that the answer could continue.")
    whole = content.lstrip()
    return text[: at + len(whole if text.startswith(whole, at) else content.strip())]


def _join_texts(parts: tuple[Part, ...]) -> list[Part]:
    """Joins adjacent texts first: a template may join them too, and so form a control token."""
    joined: list[Part] = []
    for is_text, run in groupby(parts, lambda part: isinstance(part, str)):
        if is_text:
            joined.append("".join(map(str, run)))
        else:
            joined.extend(run)
    return joined


@lru_cache(maxsize=4)
def _compiled(source: str) -> tuple[jinja2.Template, frozenset[str]]:
    """The template, and the variables that it reads; raises BadArtifact."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    try:
        return environment.from_string(source), frozenset(find_undeclared_variables(environment.parse(source)))
    except jinja2.TemplateError as error:
        raise BadArtifact("chat_template.jinja is not a Jinja template.") from error


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """The `tojson` of chat templates, which, unlike Jinja's, escapes nothing for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
