"""POST /v1/chat/completions: what OpenAI clients use; SageMaker asks the same as /invocations."""

from __future__ import annotations

from flask import Blueprint, Response, g, request

from gateway.api.body_reader import BodyReader
from gateway.api.chat_completion_response import CompletionShape
from gateway.api.handler import ChatHandler
from gateway.schemas.openai import parse_completion
from gateway.settings import GatewaySettings


def routes(settings: GatewaySettings, bodies: BodyReader, handler: ChatHandler, build_digest: str) -> Blueprint:
    """The blueprint of this route."""
    blueprint = Blueprint("completions", __name__)

    @blueprint.post("/v1/invocations")
    @blueprint.post("/v1/chat/completions")
    def chat_completions() -> Response:
        asked = bodies.read_as(request, parse_completion, settings.thinking)
        handler.check_model(asked.model)
        shape = CompletionShape(
            settings.model_name,
            build_digest,
            g.record.request_id,
            handler.service.tokenizer,
            asked.wanted,
            asked.conversation.answers,
        )
        return handler.respond(asked.conversation, shape, asked.is_stream)

    return blueprint
