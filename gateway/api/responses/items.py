"""The items of a request's input: messages, thoughts, calls and their results, read into turns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gateway.api.as_chat import in_order_of_calls
from gateway.schemas.common import Body, is_blank
from gateway.schemas.conversation import Shown, Turn
from gateway.schemas.json_reader import parse_json
from gateway.schemas.parts import Part
from gateway.schemas.tools import FunctionName
from glmserve.errors import InvalidInput
from glmserve.limits import MAX_PARTS
from glmserve.model.chat_template import ToolCall

_Parts = str | Annotated[list[Part], Field(max_length=MAX_PARTS, fail_fast=True)]
_ACCEPTED = "message, function_call, function_call_output and reasoning"


class Thought(Body):
    """A part of what a model thought."""

    text: str | None = None


class Item(Body):
    """An item: its type, message where none is told, says which of the fields it has."""

    type: str = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: _Parts | None = None
    thoughts: Annotated[list[Thought], Field(fail_fast=True)] | None = None
    summary: Annotated[list[Thought], Field(fail_fast=True)] | None = None
    call_id: str | None = None
    name: FunctionName | None = None
    arguments: str | None = None
    output: _Parts | None = None

    @model_validator(mode="before")
    @classmethod
    def _apart(cls, sent: Any) -> Any:
        """The content of thoughts has parts of its own."""
        if isinstance(sent, dict) and sent.get("type") == "reasoning":
            content = sent.get("content")
            return {**sent, "content": None, "thoughts": [{"text": content}] if isinstance(content, str) else content}
        return sent


@dataclass
class _Assistant:
    """What an assistant says in items that follow one another, which are one turn."""

    parts: list[str | Shown] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    call_ids: list[str | None] = field(default_factory=list)

    def turns(self) -> list[Turn]:
        """The turn, or none where nothing was said."""
        if not (self.parts or self.thoughts or self.calls):
            return []
        return [Turn("assistant", tuple(self.parts), "\n".join(self.thoughts) or None, tuple(self.calls))]


def turns_of(asked: str | list[Item], instructions: str | None) -> tuple[Turn, ...]:
    """What is said, the instructions first; raises InvalidInput when nobody asks anything."""
    turns = [Turn("system", (instructions,))] if instructions and instructions.strip() else []
    items = [Item(role="user", content=asked)] if isinstance(asked, str) else asked
    said, called = _Assistant(), list[str | None]()
    results: list[tuple[str | None, Turn]] = []
    for i, item in enumerate(items):
        place = f"input[{i}]"
        if item.type == "function_call_output":
            turns += said.turns()
            called, said = said.call_ids or called, _Assistant()
            results.append((item.call_id, _result(item, place)))
            continue
        turns += in_order_of_calls(results, called)
        results = []
        if item.type in ("function_call", "reasoning") or item.role == "assistant":
            _say(said, item, place)
            continue
        turns += said.turns()
        said = _Assistant()
        turns += _asked(item, place)
    turns += [*said.turns(), *in_order_of_calls(results, called)]
    if all(turn.role == "system" for turn in turns):
        raise InvalidInput(
            "The field input must be text, or a list of items of which one asks or says something.", "input"
        )
    return tuple(turns)


def _say(said: _Assistant, item: Item, place: str) -> None:
    if item.type == "reasoning":
        said.thoughts += [thought.text for thought in item.thoughts or item.summary or () if thought.text]
    elif item.type == "function_call":
        called = ToolCall(_needed(item, "name", place), _arguments(item.arguments, f"{place}.arguments"))
        said.calls.append(called)
        said.call_ids.append(_needed(item, "call_id", place))
    elif item.type == "message":
        said.parts += _parts(item.content, f"{place}.content")
    else:
        raise _unknown(item, place)


def _needed(item: Item, name: str, place: str) -> str:
    """A field that its type needs; raises InvalidInput."""
    value: str | None = getattr(item, name)
    if not value:
        raise InvalidInput(f"The field {place} is of type {item.type} but has no {name}.", f"{place}.{name}")
    return value


def _result(item: Item, place: str) -> Turn:
    if item.output is None:
        raise InvalidInput(f"The field {place} is of type function_call_output but has no output.", f"{place}.output")
    return Turn("tool", tuple(_parts(item.output, f"{place}.output")), is_list=isinstance(item.output, list))


def _asked(item: Item, place: str) -> list[Turn]:
    if item.type != "message":
        raise _unknown(item, place)
    if item.role is None:
        raise InvalidInput(f"The field {place} is a message but has no role.", f"{place}.role")
    parts = _parts(item.content, f"{place}.content")
    if not any(not isinstance(part, str) or part.strip() for part in parts):
        return []
    return [Turn("user" if item.role == "user" else "system", tuple(parts))]


def _unknown(item: Item, place: str) -> InvalidInput:
    return InvalidInput(
        f"The field {place} is an item of type {item.type}; {_ACCEPTED} are accepted, each sent whole.", f"{place}.type"
    )


def _parts(content: str | list[Part] | None, place: str) -> list[str | Shown]:
    if isinstance(content, str):
        return [content]
    return [part.read(f"{place}[{i}]") for i, part in enumerate(content or ())]


def _arguments(text: str | None, place: str) -> dict[str, Any]:
    try:
        arguments = parse_json("{}" if text is None or is_blank(text) else text)
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidInput(f"The field {place} must be a JSON object as text.", place)
    return arguments
