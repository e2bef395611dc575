"""What a client may send to /v1/responses, read into the one conversation that every chat route asks with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from gateway.api.as_chat import conversation_of
from gateway.api.responses.items import Item, turns_of
from gateway.schemas.common import FLAG, Body, RequestBody, Text, with_parameters
from gateway.schemas.conversation import Conversation
from gateway.schemas.openai import CompletionBody
from gateway.schemas.token_fields import TokenFields
from gateway.schemas.unknown_fields import read_knowing
from glmserve.errors import InvalidInput
from glmserve.limits import MAX_LOGPROBS, MAX_TOOLS
from glmserve.sampling_parameters import BY_NAME

_MAX_ITEMS = 2048
_OF_TOKENS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty")
_SHARED = (*_OF_TOKENS, "seed", "min_tokens", "ignore_eos")
_OF_CHAT = ("stop", "stop_token_ids", "logit_bias", "cache_salt", "structured_outputs", "chat_template_kwargs")
_NAMES = {
    "response_format": "text.format",
    "max_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    ".function.": ".",
}
_LOGPROBS = "message.output_text.logprobs"
_NOTHING_KEPT = "left out: this service keeps no answers, so send the earlier items in input"


def _described(name: str) -> str | None:
    """What a field of /v1/chat/completions must be; that route reads it further."""
    return TokenFields.model_fields[name].description


class Format(Body):
    """What the answer must look like."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None
    description: str | None = None


class TextOptions(Body):
    """How the text of the answer is written."""

    format: Format | None = None
    verbosity: Literal["medium"] | None = None


class Reasoning(Body):
    """Whether the model thinks first, and how its thoughts are told."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None


class ResponseTool(Body):
    """A function that the model may call."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolSelection(Body):
    """Which tools may or must be called."""

    type: str
    name: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: Annotated[list[ResponseTool], Field(fail_fast=True)] | None = None


@with_parameters({"max_output_tokens": BY_NAME["max_tokens"], **{name: BY_NAME[name] for name in _SHARED}})
class ResponsesBody(RequestBody):
    """The JSON body of a request to /v1/responses."""

    model: Text | None = Field(default=None, description="the name of a model, as GET /v1/models lists it")
    input: str | Annotated[list[Item], Field(max_length=_MAX_ITEMS, fail_fast=True)] = Field(
        description=f"a string, or a list of at most {_MAX_ITEMS} items"
    )
    instructions: str | None = Field(default=None, description="a string")
    tools: list[ResponseTool] | None = Field(
        default=None,
        max_length=MAX_TOOLS,
        fail_fast=True,
        description=f"a list of at most {MAX_TOOLS} tools of type function with name and parameters",
    )
    tool_choice: Literal["none", "auto", "required"] | ToolSelection | None = Field(
        default=None,
        description='"none", "auto", "required", {"type": "function", "name": ...} '
        'or {"type": "allowed_tools", "mode": ..., "tools": [...]}',
    )
    parallel_tool_calls: bool | None = Field(default=None, description=FLAG)
    text: TextOptions | None = Field(
        default=None,
        description='{"format": ...} with a format of {"type": "text"}, {"type": "json_object"} '
        'or {"type": "json_schema", "name": ..., "schema": {...}}',
    )
    reasoning: Reasoning | None = Field(
        default=None,
        description='{"effort": ..., "summary": ...} with an effort of none, minimal, low, medium, high, xhigh or max '
        "and a summary of auto, concise or detailed",
    )
    include: list[str] | None = Field(default=None, fail_fast=True, description="a list of strings")
    top_logprobs: int | None = Field(
        default=None, ge=0, le=MAX_LOGPROBS, description=f"a whole number from 0 to {MAX_LOGPROBS}"
    )
    stop: str | Annotated[list[str], Field(fail_fast=True)] | None = Field(default=None, description=_described("stop"))
    stop_token_ids: list[int] | None = Field(default=None, fail_fast=True, description=_described("stop_token_ids"))
    logit_bias: dict[str, float] | None = Field(default=None, description=_described("logit_bias"))
    cache_salt: str | None = Field(default=None, description=_described("cache_salt"))
    structured_outputs: dict[str, Any] | None = Field(
        default=None, description=CompletionBody.model_fields["structured_outputs"].description
    )
    chat_template_kwargs: dict[str, Any] | None = Field(default=None, description='{"enable_thinking": true}')
    stream: bool | None = Field(default=None, description=FLAG)
    metadata: dict[str, str] | None = Field(default=None, description="an object of strings")
    store: bool | None = Field(default=None, description=FLAG)
    user: str | None = Field(default=None, description="a string")
    stream_options: dict[str, Any] | None = Field(default=None, description="an object")
    max_tool_calls: int | None = Field(default=None, description="a whole number, for tools that are not here")
    truncation: Literal["disabled"] | None = Field(default=None, description='"disabled": nothing is left out of input')
    background: Literal[False] | None = Field(default=None, description="false: answers are given at once")
    enable_response_messages: bool | None = Field(default=None, description=FLAG)
    previous_response_id: None = Field(default=None, description=_NOTHING_KEPT)
    conversation: None = Field(default=None, description=_NOTHING_KEPT)
    prompt: None = Field(default=None, description="left out: this service keeps no prompts, so send instructions")


@dataclass(frozen=True)
class Asked:
    """A request to /v1/responses: its body, and what is asked."""

    read: ResponsesBody
    conversation: Conversation

    @property
    def summarises(self) -> bool:
        """Whether thoughts are wanted as a summary, and not as they are."""
        return self.read.reasoning is not None and self.read.reasoning.summary is not None


def parse_response(body: bytes, thinks_by_default: bool) -> Asked:
    """The request in a body; raises InvalidInput with a sentence that names the field at fault."""
    read, unknown = read_knowing(ResponsesBody, body, "model and input")
    turns = turns_of(read.input, read.instructions)
    conversation = conversation_of(turns, "input", _fields(read), _NAMES, thinks_by_default)
    return Asked(read, replace(conversation, unknown=unknown))


def _fields(read: ResponsesBody) -> dict[str, Any]:
    """What is asked, in the fields of /v1/chat/completions."""
    fields: dict[str, Any] = {name: getattr(read, name) for name in (*_SHARED, *_OF_CHAT)}
    fields["max_tokens"] = getattr(read, "max_output_tokens", None)
    if read.reasoning is not None:
        fields["reasoning_effort"] = read.reasoning.effort
    if read.text is not None and read.text.format is not None:
        fields["response_format"] = _format(read.text.format)
    if read.top_logprobs or _LOGPROBS in (read.include or ()):
        fields |= {"logprobs": True, "top_logprobs": read.top_logprobs or 0}
    tools = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(read.tools or ())]
    choice = _choice(read.tool_choice)
    if not tools and choice in (None, "auto", "none"):
        return fields
    offered = {"tools": tools or None, "parallel_tool_calls": read.parallel_tool_calls}
    return {**fields, **offered, "tool_choice": choice}


def _choice(choice: str | ToolSelection | None) -> str | dict[str, Any] | None:
    if not isinstance(choice, ToolSelection):
        return choice
    if choice.type == "function" and choice.name is not None:
        return {"type": "function", "function": {"name": choice.name}}
    if choice.type == "allowed_tools":
        named = [{"type": "function", "function": {"name": tool.name}} for tool in choice.tools or ()]
        return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode or "auto", "tools": named}}
    raise InvalidInput(
        f"The field tool_choice is of type {choice.type}; function, with a name, and allowed_tools are accepted.",
        "tool_choice",
    )


def _format(wanted: Format) -> dict[str, Any]:
    if wanted.type != "json_schema":
        return {"type": wanted.type}
    if wanted.schema_ is None:
        raise InvalidInput(
            "The field text.format.schema is missing, which the type json_schema needs.", "text.format.schema"
        )
    return {"type": "json_schema", "json_schema": {"name": wanted.name or "answer", "schema": wanted.schema_}}


def _tool(tool: ResponseTool, field: str) -> dict[str, Any]:
    if tool.type != "function":
        raise InvalidInput(
            f"The field {field} is a tool of type {tool.type}, which this service does not have; "
            "tools of type function, with a name and parameters, are accepted.",
            f"{field}.type",
        )
    told = {"name": tool.name, "description": tool.description, "parameters": tool.parameters, "strict": tool.strict}
    return {"type": "function", "function": {name: value for name, value in told.items() if value is not None}}
