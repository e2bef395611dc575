"""What a client may send to /v1/messages, field by field."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from gateway.schemas.common import FLAG, Body, RequestBody, Text, with_parameters
from gateway.schemas.messages import MAX_MESSAGES
from gateway.schemas.token_fields import TokenFields
from glmserve.limits import MAX_PARTS, MAX_STOP_CHARS, MAX_STOP_STRINGS, MAX_TOOLS
from glmserve.sampling_parameters import BY_NAME

_SHARED = {name: BY_NAME[name] for name in ("temperature", "top_p", "top_k")}


class Source(Body):
    """Where the bytes or the text of a block are."""

    type: str = "base64"
    data: str | None = None
    url: str | None = None


class Block(Body):
    """A block of content: its type says which of the fields it has."""

    type: str
    text: str | None = None
    source: Source | None = None
    thinking: str | None = None
    id: str | None = None
    tool_use_id: str | None = None
    name: str | None = None
    tool_name: str | None = None
    data: str | None = None
    input: dict[str, Any] | None = None
    content: str | Annotated[list[Block], Field(max_length=MAX_PARTS, fail_fast=True)] | None = None
    is_error: bool | None = None


_Content = str | Annotated[list[Block], Field(max_length=MAX_PARTS, fail_fast=True)]


class SentMessage(Body):
    """One message of a conversation."""

    role: Literal["user", "assistant", "system"]
    content: _Content | None = None


class OfferedTool(Body):
    """A tool that the model may call."""

    type: str | None = None
    name: str
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class ToolUse(Body):
    """Whether tools may, must or must not be used, and which."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Body):
    """Whether the model thinks first."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Field(ge=1)] | None = None
    display: Literal["omitted", "summarized", "updates"] | None = None


class OutputFormat(Body):
    """A schema that the answer must match."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Body):
    """What the answer must look like."""

    format: OutputFormat | None = None


class CountBody(RequestBody):
    """The JSON body of a request to /v1/messages/count_tokens: a conversation, and how it will be answered."""

    model: Text | None = Field(default=None, description="the name of a model, as GET /v1/models lists it")
    messages: list[SentMessage] = Field(
        min_length=1,
        max_length=MAX_MESSAGES,
        fail_fast=True,
        description=f"a list of 1 to {MAX_MESSAGES} messages with role (user or assistant) and content: text, "
        f"or a list of at most {MAX_PARTS} blocks, each with its type",
    )
    system: _Content | None = Field(default=None, description="a string, or a list of text blocks")
    tools: list[OfferedTool] | None = Field(
        default=None,
        max_length=MAX_TOOLS,
        fail_fast=True,
        description=f"a list of at most {MAX_TOOLS} tools with name and input_schema",
    )
    tool_choice: ToolUse | None = Field(
        default=None, description='{"type": "auto"}, {"type": "any"}, {"type": "tool", "name": ...} or {"type": "none"}'
    )
    thinking: Thinking | None = Field(
        default=None,
        description='{"type": "enabled", "budget_tokens": ...}, {"type": "adaptive"} or {"type": "disabled"}',
    )
    output_config: OutputConfig | None = Field(
        default=None, description='{"format": {"type": "json_schema", "schema": {...}}}'
    )
    output_format: OutputFormat | None = Field(
        default=None, description='{"type": "json_schema", "schema": {...}}, as output_config.format'
    )
    cache_salt: str | None = Field(default=None, description=TokenFields.model_fields["cache_salt"].description)


@with_parameters({"max_tokens": BY_NAME["max_tokens"], **_SHARED})
class AskingBody(CountBody):
    """The JSON body of a request to /v1/messages."""

    stop_sequences: list[Annotated[str, Field(max_length=MAX_STOP_CHARS)]] | None = Field(
        default=None,
        fail_fast=True,
        max_length=MAX_STOP_STRINGS,
        description=f"a list of at most {MAX_STOP_STRINGS} strings, each of at most {MAX_STOP_CHARS} characters",
    )
    stream: bool | None = Field(default=None, description=FLAG)
    metadata: dict[str, Any] | None = Field(default=None, description="an object")
    context_management: dict[str, Any] | None = Field(default=None, description="an object; nothing is left out here")
    betas: list[str] | None = Field(default=None, fail_fast=True, description="a list of strings")
    container: None = Field(default=None, description="left out: no code runs here")
    mcp_servers: Annotated[list[Any], Field(max_length=0, fail_fast=True)] | None = Field(
        default=None, description="left out: offer an MCP server's tools as tools"
    )
