"""Turns a body of /v1/messages into the one conversation that every chat route asks with."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from gateway.api.as_chat import conversation_of, in_order_of_calls
from gateway.api.messages.body import AskingBody, Block, CountBody, OfferedTool, SentMessage
from gateway.schemas.conversation import Conversation, SentImage, SentVideo, Shown, Turn
from gateway.schemas.mistakes import shown
from glmserve.errors import InvalidInput
from glmserve.model.chat_template import ToolCall
from glmserve.model.tool_parser import FUNCTION_NAME

_BILLING = "x-anthropic-billing-header"
"""How a block begins that an agent changes with each request: read, it would make every prompt a new one."""
_NAMES = {
    "response_format": "output_config.format",
    "stop": "stop_sequences",
    "parallel_tool_calls": "tool_choice",
    ".function.parameters": ".input_schema",
    ".function.": ".",
}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_OF_USER = "text, image, video and tool_result"
_OF_ASSISTANT = "text, thinking and tool_use"
_OF_RESULT = "text, image and tool_reference"
_NO_RESULT = "The tool failed and said nothing."


def conversation(read: CountBody) -> Conversation:
    """Raises InvalidInput with a sentence that names the field at fault."""
    fields: dict[str, Any] = {
        "tools": None if read.tools is None else [_tool(tool, f"tools[{i}]") for i, tool in enumerate(read.tools)],
        "thinking": read.thinking is not None and read.thinking.type != "disabled",
        "cache_salt": read.cache_salt,
    }
    if read.tool_choice is not None and (fields["tools"] or read.tool_choice.type in ("any", "tool")):
        fields |= _choice(read)
    wanted = read.output_config.format if read.output_config else None
    if wanted is not None and read.output_format is not None:
        raise InvalidInput(
            "The fields output_config.format and output_format both say what the answer must match; send one of them.",
            "output_format",
        )
    wanted = wanted or read.output_format
    if wanted is not None:
        fields["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted.schema_}}
    if isinstance(read, AskingBody):
        given = ("max_tokens", "temperature", "top_p", "top_k")
        fields |= {name: getattr(read, name) for name in given}
        fields["stop"] = [stop for stop in read.stop_sequences or () if stop] or None
    turns = _turns(read)
    asked = conversation_of(turns, "messages", fields, _NAMES)
    if turns[-1].role != "assistant":  # a system's last message follows what it speaks of
        return asked
    return replace(asked, asks=False, continues=True, rules=replace(asked.rules, continues=True))


def _choice(read: CountBody) -> dict[str, Any]:
    wanted = read.tool_choice
    assert wanted is not None
    parallel = {"parallel_tool_calls": False} if wanted.disable_parallel_tool_use else {}
    if wanted.type != "tool":
        return {"tool_choice": _CHOICES[wanted.type], **parallel}
    if wanted.name is None:
        raise InvalidInput("A tool_choice of type tool needs the name of a tool.", "tool_choice.name")
    return {"tool_choice": {"type": "function", "function": {"name": wanted.name}}, **parallel}


def _tool(tool: OfferedTool, field: str) -> dict[str, Any]:
    if tool.type not in (None, "custom"):
        raise InvalidInput(
            f"The field {field} is a tool of type {tool.type}, which this service does not have; "
            "tools of type custom, with a name and an input_schema, are accepted.",
            f"{field}.type",
        )
    told = {"description": tool.description, "strict": tool.strict}
    function = {"name": tool.name, **{name: value for name, value in told.items() if value is not None}}
    return {"type": "function", "function": {**function, "parameters": tool.input_schema or {"type": "object"}}}


def _turns(read: CountBody) -> tuple[Turn, ...]:
    """The system text, and every message that says something; raises InvalidInput when nobody asks anything."""
    turns: list[Turn] = _system(read.system, "system") if read.system is not None else []
    called: list[str | None] = []
    for i, message in enumerate(read.messages):
        field = f"messages[{i}].content"
        if message.role == "system":
            turns += _system(message.content, field)
        elif message.role == "assistant":
            turns.append(_said(_blocks(message), field))
            called = [block.id for block in _blocks(message) if block.type == "tool_use"]
        else:
            turns += _asked(_blocks(message), field, called)
    last = next((turn for turn in reversed(turns) if turn.role != "system"), None)
    if last is None or (last.role == "assistant" and not _is_begun(last)):
        raise InvalidInput(
            "The last of the messages must be of role user and hold text, an image or a tool's result, "
            "or of role assistant and hold the text that the answer goes on with.",
            "messages",
        )
    return tuple(turns)


def _is_begun(turn: Turn) -> bool:
    """Whether an assistant's message may be gone on with."""
    return not turn.tool_calls and any(isinstance(part, str) and part.strip() for part in turn.parts)


def _blocks(message: SentMessage) -> list[Block]:
    content = message.content
    return [Block(type="text", text=content)] if isinstance(content, str) else content or []


def _system(content: str | list[Block] | None, field: str) -> list[Turn]:
    blocks = [Block(type="text", text=content)] if isinstance(content, str) else content or []
    texts = [_text(block, f"{field}[{i}]", "text") for i, block in enumerate(blocks)]
    kept = [text for text in texts if text.strip() and not text.startswith(_BILLING)]
    return [Turn("system", ("\n".join(kept),))] if kept else []


def _asked(blocks: list[Block], field: str, called: list[str | None]) -> list[Turn]:
    """A user's message: results of tools are turns of their own, in the order in which the tools were called."""
    turns: list[Turn] = []
    parts: list[str | Shown] = []
    results: list[tuple[str | None, Turn]] = []
    for i, block in enumerate(blocks):
        place = f"{field}[{i}]"
        if block.type == "tool_result":
            _require(block.tool_use_id, block, place, "tool_use_id")
            turns += _user(parts)
            parts = []
            results.append((block.tool_use_id, _result(block, place)))
        else:
            turns += in_order_of_calls(results, called)
            results = []
            parts.append(_part(block, place, _OF_USER))
    return [*turns, *_user(parts), *in_order_of_calls(results, called)]


def _user(parts: list[str | Shown]) -> list[Turn]:
    has_said = any(not isinstance(part, str) or part.strip() for part in parts)
    return [Turn("user", tuple(parts))] if has_said else []


def _result(block: Block, field: str) -> Turn:
    content = block.content or ""
    parts = (
        (content,)
        if isinstance(content, str)
        else tuple(_part(inner, f"{field}.content[{i}]", _OF_RESULT) for i, inner in enumerate(content))
    )
    if block.is_error and not any(parts):
        parts = (_NO_RESULT,)
    return Turn("tool", parts, is_list=isinstance(block.content, list))


def _said(blocks: list[Block], field: str) -> Turn:
    """An assistant's message."""
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    for i, block in enumerate(blocks):
        place = f"{field}[{i}]"
        if block.type == "thinking":
            _require(block.thinking is not None, block, place, "thinking")
            thoughts.append(block.thinking or "")
        elif block.type == "redacted_thinking":
            _require(block.data, block, place, "data")
        elif block.type == "tool_use":
            _require(block.id, block, place, "id")
            _require(block.name, block, place, "name")
            _require(block.input is not None, block, place, "input")
            assert block.name is not None
            if not re.fullmatch(FUNCTION_NAME, block.name):
                raise InvalidInput(
                    f"The field {place}.name is {shown(block.name)}; it must be 1 to 64 letters, digits and ._-.",
                    f"{place}.name",
                )
            calls.append(ToolCall(block.name, block.input or {}))
        else:
            texts.append(_text(block, place, _OF_ASSISTANT))
    return Turn("assistant", tuple(texts), "".join(thoughts) or None, tuple(calls))


def _part(block: Block, field: str, accepted: str) -> str | Shown:
    source = block.source
    if block.type in ("image", "video"):
        sent = {"base64": source.data, "url": source.url}.get(source.type) if source is not None else None
        if not sent:
            raise InvalidInput(
                f"The source of {field} must be of type base64 with data, or of type url with a url.",
                f"{field}.source",
            )
        place = f"{field}.source"
        return SentImage(sent, place) if block.type == "image" else SentVideo(sent, place)
    if block.type == "tool_reference" and accepted == _OF_RESULT:
        _require(block.tool_name, block, field, "tool_name")
        return block.tool_name or ""
    if block.type == "document" and source is not None and source.type == "text" and source.data is not None:
        return source.data
    if block.type == "document":
        raise InvalidInput(
            f"The source of {field} must be of type text with data: of documents only plain text is read.",
            f"{field}.source",
        )
    return _text(block, field, accepted)


def _text(block: Block, field: str, accepted: str) -> str:
    if block.type != "text":
        raise InvalidInput(
            f"The field {field} is a block of type {block.type}; here blocks of type {accepted} are accepted.",
            f"{field}.type",
        )
    _require(block.text is not None, block, field, "text")
    return block.text or ""


def _require(value: object, block: Block, field: str, name: str) -> None:
    """Raises InvalidInput for a block without what its type says it has."""
    if not value:
        raise InvalidInput(f"The field {field} is of type {block.type} but has no {name}.", f"{field}.{name}")
