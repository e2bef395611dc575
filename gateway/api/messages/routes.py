"""POST /v1/messages and /v1/messages/count_tokens: what Anthropic's clients use."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flask import Blueprint, Response, g, jsonify, request

from gateway.api.body_reader import BodyReader
from gateway.api.handler import ChatHandler
from gateway.api.messages.answer import MessageShape
from gateway.api.messages.body import AskingBody, CountBody
from gateway.api.messages.conversation import conversation
from gateway.openapi.field_docs import Meaning
from gateway.openapi.operations import RouteDocs, asking
from gateway.openapi.responses import MODEL_NAME, fields, said
from gateway.schemas.conversation import Conversation
from gateway.schemas.unknown_fields import read_knowing
from gateway.settings import GatewaySettings

PATH = "/v1/messages"
_NEEDED = "model, max_tokens and messages"


def routes(settings: GatewaySettings, bodies: BodyReader, handler: ChatHandler) -> Blueprint:
    """The blueprint of these routes."""
    blueprint = Blueprint("messages", __name__)

    @blueprint.post(PATH)
    def messages() -> Response:
        model, asked, is_stream = bodies.read_as(request, _asked)
        handler.check_model(model)
        shape = MessageShape(settings.model_name, g.record.request_id)
        return handler.respond(asked, shape, is_stream)

    @blueprint.post(f"{PATH}/count_tokens")
    def count_tokens() -> Response:
        model, counted = bodies.read_as(request, _counted)
        handler.check_model(model)
        return jsonify(input_tokens=len(handler.count(counted).input_ids))

    return blueprint


def _asked(body: bytes) -> tuple[str | None, Conversation, bool]:
    """Of which model what is asked, and whether the answer is to come in pieces; raises InvalidInput."""
    read, unknown = read_knowing(AskingBody, body, _NEEDED)
    return read.model, replace(conversation(read), unknown=unknown), bool(read.stream)


def _counted(body: bytes) -> tuple[str | None, Conversation]:
    read, unknown = read_knowing(CountBody, body, "model and messages", AskingBody)
    return read.model, replace(conversation(read), unknown=unknown)


def docs() -> RouteDocs:
    """What these routes tell the OpenAPI document."""
    asked = asking("Anthropic's messages.", AskingBody, "Message", "MessagesProblem", streams=True)
    counted = asking("Count the tokens of messages, images included.", CountBody, "InputTokens", "MessagesProblem")
    return RouteDocs(
        {PATH: {"post": asked}, f"{PATH}/count_tokens": {"post": counted}},
        (AskingBody, CountBody),
        _MEANINGS,
        _ANSWERS,
        _EXAMPLES,
    )


_MEANINGS = {
    "messages": Meaning("The conversation so far; the last message asks. cache_control is read and not needed."),
    "system": Meaning("What the model is told before the conversation."),
    "tools": Meaning("What the model may call."),
    "tool_choice": Meaning("Whether it may, must or must not call a tool, and which.", {"type": "auto"}),
    "thinking": Meaning("Whether the model thinks first; max_tokens bounds its thoughts and its answer together."),
    "output_config": Meaning("A JSON Schema that the answer must match."),
    "output_format": Meaning("The same as earlier versions of Anthropic's clients send it."),
    "stop_sequences": Meaning("Text that ends the answer, which stops before it."),
    **{name: Meaning("Known for Anthropic's clients' sake.") for name in ("metadata", "context_management", "betas")},
    **{name: Meaning("Known for Anthropic's clients' sake.") for name in ("container", "mcp_servers")},
}
_ANSWERS = {
    "Message": fields(
        *("id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"),
        id=said("string", "Names the answer."),
        type={"const": "message"},
        role={"const": "assistant"},
        model=MODEL_NAME,
        content=said("array", "Blocks of type thinking, text and tool_use.", items={"type": "object"}),
        stop_reason=said("string", "end_turn, max_tokens, stop_sequence or tool_use."),
        stop_sequence={"type": ["string", "null"], "description": "The stop sequence that was met."},
        usage=said("object", "Tokens of the prompt, of which earlier ones were kept (cache_read), and of the answer."),
    ),
    "MessagesProblem": fields(
        *("type", "error", "request_id"),
        type={"const": "error"},
        error=fields(*("type", "message"), type=said("string"), message=said("string")),
        request_id=said("string", "Names the request in the service's log; X-Request-ID is the same."),
    ),
    "InputTokens": fields("input_tokens", input_tokens=said("integer", "Tokens of the whole prompt.")),
}
_EXAMPLES: dict[str, dict[str, Any]] = {
    "AskingBody": {"max_tokens": 64, "messages": [{"role": "user", "content": "What colour is the sky?"}]},
    "CountBody": {"messages": [{"role": "user", "content": "What colour is the sky?"}]},
}
