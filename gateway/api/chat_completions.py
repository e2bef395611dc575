"""POST /v1/chat/completions, GET /v1/models and POST /v1/tokenize: what OpenAI clients use."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, g, jsonify, request
from pydantic import ValidationError

from gateway.api.body_reader import BodyReader
from gateway.api.chat_completion_response import CompletionShape
from gateway.api.handler import ChatHandler
from gateway.errors import UnknownModel
from gateway.schemas.common import read_json, refusal
from gateway.schemas.conversation import Conversation
from gateway.schemas.messages import MessagesBody
from gateway.schemas.openai import parse_completion
from gateway.settings import GatewaySettings
from glmserve.build.certificate import Certificate
from glmserve.build.manifest import Manifest
from glmserve.sampling_parameters import Sampling

_COUNTING = Sampling(max_tokens=1)


def routes(
    settings: GatewaySettings, bodies: BodyReader, handler: ChatHandler, manifest: Manifest, created_s: int
) -> Blueprint:
    """The blueprint of these routes; `created_s` is when the build was made."""
    blueprint = Blueprint("completions", __name__)
    is_verified = Certificate.vouches(settings.build, manifest)

    def check_model(name: str | None) -> None:
        if name is not None and name not in (settings.model_name, *settings.model_aliases):
            raise UnknownModel(f"Unknown model; this service has {settings.model_name}.", "model")

    def described() -> dict[str, Any]:
        return {
            "id": settings.model_name,
            "object": "model",
            "created": created_s,
            "owned_by": "zai-org",
            "build": manifest.digest,
            "verified": is_verified,
            "demo": handler.service.is_demo,
            "max_model_len": handler.service.context_tokens,
        }

    @blueprint.post("/v1/chat/completions")
    def chat_completions() -> Response:
        asked = parse_completion(bodies.read(request), settings.thinking)
        check_model(asked.model)
        shape = CompletionShape(
            settings.model_name,
            manifest.digest,
            g.record.request_id,
            handler.service.tokenizer,
            asked.includes_usage,
        )
        return handler.respond(asked.conversation, shape, asked.is_stream)

    @blueprint.get("/v1/models")
    def models() -> Response:
        return jsonify(object="list", data=[described()])

    @blueprint.get("/v1/models/<path:name>")
    def model(name: str) -> Response:
        check_model(name)
        return jsonify(described())

    @blueprint.post("/v1/tokenize")
    def tokenize() -> Response:
        document = read_json(bodies.read(request), "messages")
        try:
            read = MessagesBody.model_validate(document)
        except ValidationError as error:
            raise refusal(error, document, MessagesBody) from None
        check_model(read.model)
        asked = read.thinks()
        conversation = Conversation(
            read.turns(),
            _COUNTING,
            thinking=settings.thinking if asked is None else asked,
            tools=tuple(tool.model_dump(exclude_none=True) for tool in read.tools or ()),
            prompt_field="messages",
        )
        prompt = handler.count(conversation)
        return jsonify(
            count=len(prompt.input_ids),
            image_tokens=prompt.image_tokens,
            max_model_len=handler.service.context_tokens,
        )

    return blueprint
