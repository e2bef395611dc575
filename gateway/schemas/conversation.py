"""What both chat routes turn a request into: turns of text and pictures, and how the answer is to be generated."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from glmserve.model.chat_template import Role, ToolCall
from glmserve.sampling_parameters import Sampling


@dataclass(frozen=True)
class SentImage:
    """A picture as it was sent: a file's bytes, base64, or a URL; `field` is where in the request it stood."""

    data: str | bytes
    field: str = "image"


@dataclass(frozen=True)
class Turn:
    """What one side said; `thoughts` and `tool_calls` are an assistant's."""

    role: Role
    parts: tuple[str | SentImage, ...]
    thoughts: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class Conversation:
    """One request with every default filled in; `grammar` is a JSON Schema or empty."""

    turns: tuple[Turn, ...]
    sampling: Sampling
    stop: tuple[str, ...] = ()
    thinking: bool = False
    grammar: bytes = b""
    tools: tuple[dict[str, Any], ...] = ()
    prompt_field: str = "prompt"
    raw: str | tuple[int, ...] | None = None
    """A prompt as text or token ids that stands for the turns, without the chat template."""

    def images(self) -> list[SentImage]:
        """All pictures in the order they are read."""
        return [part for turn in self.turns for part in turn.parts if isinstance(part, SentImage)]

    def chars(self) -> int:
        """Characters of everything that becomes the prompt: texts and thoughts, and calls and tools as JSON."""
        written = [part for turn in self.turns for part in turn.parts if isinstance(part, str)]
        written += [turn.thoughts for turn in self.turns if turn.thoughts]
        calls = [call for turn in self.turns for call in turn.tool_calls]
        written += [call.name + json.dumps(call.arguments, ensure_ascii=False) for call in calls]
        written += [json.dumps(tool, ensure_ascii=False) for tool in self.tools]
        written += [self.raw] if isinstance(self.raw, str) else []
        return sum(map(len, written))
