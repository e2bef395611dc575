"""GET /v1/models and /v1/models/NAME: what is served here and what it can do, for OpenAI's and Anthropic's clients."""

from __future__ import annotations

import datetime
from typing import Any

from flask import Blueprint, Response, jsonify

from gateway.api.handler import ChatHandler
from gateway.openapi.operations import LOOKING, RouteDocs, operation
from gateway.openapi.responses import MODEL_NAME, fields, said
from gateway.settings import GatewaySettings
from glmserve.build.certificate import Certificate
from glmserve.build.manifest import Manifest


def routes(settings: GatewaySettings, handler: ChatHandler, manifest: Manifest, created_s: int) -> Blueprint:
    """The blueprint of these routes; `created_s` is when the build was made."""
    blueprint = Blueprint("models", __name__)
    is_verified = Certificate.vouches(settings.build, manifest)
    service = handler.service
    described: dict[str, Any] = {
        "id": settings.model_name,
        "object": "model",
        "created": created_s,
        "owned_by": "zai-org",
        "build": manifest.digest,
        "adapters": [adapter["name"] for adapter in manifest.adapters],
        "verified": is_verified,
        "demo": service.is_demo,
        "max_model_len": service.context_tokens,
        "context_length": service.context_tokens,
        "capabilities": {
            "completion": True,
            "vision": True,
            "tools": service.takes_tools,
            "reasoning": service.thinks,
            "structured_output": True,
        },
        "input_modalities": ["text", "image", *(["video"] if service.takes_videos else [])],
        "output_modalities": ["text"],
        "type": "model",
        "display_name": settings.model_name,
        "created_at": datetime.datetime.fromtimestamp(created_s, datetime.UTC).isoformat().replace("+00:00", "Z"),
    }

    @blueprint.get("/v1/models")
    def models() -> Response:
        name = settings.model_name
        return jsonify(object="list", data=[described], has_more=False, first_id=name, last_id=name)

    @blueprint.get("/v1/models/<path:name>")
    def model(name: str) -> Response:
        handler.check_model(name)
        return jsonify(described)

    return blueprint


def docs() -> RouteDocs:
    """What these routes tell the OpenAPI document."""
    one = operation("The model, by its name.", "Model", (*LOOKING, "404"), "Problem")
    one["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": said("string")}]
    return RouteDocs(
        {
            "/v1/models": {"get": operation("The model that answers here.", "Models", LOOKING, "Problem")},
            "/v1/models/{name}": {"get": one},
        },
        answers=_ANSWERS,
    )


_LONGEST = "Most tokens of prompt, images and answer."
_ANSWERS = {
    "Models": fields(
        "data",
        object={"const": "list"},
        data={"type": "array", "items": {"$ref": "#/components/schemas/Model"}},
        has_more=said("boolean", "Always false; for Anthropic's clients, as the next two."),
        first_id=MODEL_NAME,
        last_id=MODEL_NAME,
    ),
    "Model": fields(
        *(
            "id",
            "object",
            "created",
            "owned_by",
            "build",
            "adapters",
            "verified",
            "demo",
            "max_model_len",
            "capabilities",
        ),
        id=MODEL_NAME,
        object={"const": "model"},
        created=said("integer", "When its build was made, in seconds since 1970."),
        owned_by=said("string"),
        build=said("string", "The digest of the build that is served."),
        adapters=said("array", "The LoRA adapters that are merged into it, in their order.", items=said("string")),
        verified=said("boolean", "Whether the build's answers were compared with the checkpoint's."),
        demo=said("boolean", "Whether this is the tiny model of drawn shapes, under the real one's name."),
        max_model_len=said("integer", _LONGEST),
        context_length=said("integer", f"{_LONGEST} The same as max_model_len."),
        capabilities=said("object", "What it can do: completion, vision, tools, reasoning, structured_output."),
        input_modalities=said("array", "What a prompt may hold.", items=said("string")),
        output_modalities=said("array", "What an answer holds.", items=said("string")),
        type={"const": "model"},
        display_name=MODEL_NAME,
        created_at=said("string", "The same as created, as a date."),
    ),
}
