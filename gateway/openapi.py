"""The OpenAPI document, made from the very models that read requests."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from gateway.exchange import DEADLINE_HEADER, LEAST_DEADLINE_S
from gateway.forms import FORM
from gateway.openai_schemas import CompletionBody, MessagesBody
from gateway.schemas import VisionBody
from gateway.sse import MIMETYPE

_WHY = {
    "400": "The request is wrong; the answer names the field.",
    "401": "An API key is needed, and this is none.",
    "403": "This key or address may not do this.",
    "404": "There is no such model.",
    "413": "The request is too large.",
    "429": "The caller's own limit is used up; Retry-After says when there will be room.",
    "500": "The service failed.",
    "503": "The service is full or starting; Retry-After says when to come back.",
    "504": "Time ran out.",
}
_ASKING = ("400", "401", "403", "413", "429", "500", "503", "504")
_LOOKING = ("401", "403", "429")
_TEXT = {"type": "string"}
_COUNT = {"type": "integer"}
_Schema = dict[str, Any]


def _object(required: tuple[str, ...], **properties: Any) -> _Schema:
    return {"type": "object", "required": list(required), "properties": properties}


_ANSWERS: dict[str, _Schema] = {
    "VisionAnswer": _object(
        ("result", "model", "success", "usage", "finish_reason", "request_id"),
        result=_TEXT,
        model=_TEXT,
        success={"type": "boolean", "const": True},
        thinking=_TEXT,
        logprobs={"type": "object"},
        usage={"type": "object"},
        finish_reason={"enum": ["stop", "length", "tool_calls"]},
        request_id=_TEXT,
        timings={"type": "object"},
    ),
    "VisionProblem": _object(("error", "success"), error=_TEXT, success={"type": "boolean", "const": False}),
    "Completion": _object(
        ("id", "object", "created", "model", "choices", "usage"),
        id=_TEXT,
        object={"const": "chat.completion"},
        created=_COUNT,
        model=_TEXT,
        choices={"type": "array", "items": {"type": "object"}},
        usage={"type": "object"},
    ),
    "Problem": _object(
        ("error",),
        error=_object(("message", "type"), message=_TEXT, type=_TEXT, param={"type": ["string", "null"]}, code=_TEXT),
    ),
    "Models": _object(("data",), data={"type": "array", "items": {"$ref": "#/components/schemas/Model"}}),
    "Model": _object(
        ("id", "object", "created", "owned_by", "build", "verified", "demo", "max_model_len"),
        id=_TEXT,
        object={"const": "model"},
        created=_COUNT,
        owned_by=_TEXT,
        build=_TEXT,
        verified={"type": "boolean"},
        demo={"type": "boolean"},
        max_model_len=_COUNT,
    ),
    "TokenCount": _object(
        ("count", "image_tokens", "max_model_len"), count=_COUNT, image_tokens=_COUNT, max_model_len=_COUNT
    ),
    "Health": _object(("status",), status=_TEXT, model=_TEXT, build=_TEXT, reason=_TEXT),
}


_SAID = {"type": "string", "pattern": r"\S"}
_FORM = _object(("image", "prompt"), image={"type": "string", "format": "binary"}, prompt=_SAID)
"""What `curl -F` sends at the least; every other field of VisionBody may stand beside it, written as JSON."""


def document(model_name: str) -> dict[str, Any]:
    """The document that /openapi.json serves."""
    bodies = (VisionBody, CompletionBody, MessagesBody)
    _, definitions = models_json_schema(
        [(body, "validation") for body in bodies], ref_template="#/components/schemas/{model}"
    )
    vision = _operation("Ask about one or several pictures.", "VisionAnswer", _ASKING, "VisionProblem", streams=True)
    vision["requestBody"] = _body("VisionBody")
    vision["requestBody"]["content"][FORM] = {"schema": _FORM}
    chat = _operation("OpenAI's chat completions.", "Completion", (*_ASKING, "404"), "Problem", streams=True)
    chat["requestBody"] = _body("CompletionBody")
    for operation in (vision, chat):
        text = "Seconds after which the answer is given up, where that is sooner than the service's own."
        seconds = {"type": "number", "minimum": LEAST_DEADLINE_S}
        operation["parameters"] = [
            {"name": DEADLINE_HEADER, "in": "header", "description": text, "schema": seconds},
        ]
    tokenize = _operation(
        "Count the tokens of messages, pictures included.", "TokenCount", (*_ASKING, "404"), "Problem"
    )
    tokenize["requestBody"] = _body("MessagesBody")
    model = _operation("The model, by its name.", "Model", (*_LOOKING, "404"), "Problem")
    model["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": _TEXT}]
    ready = _operation("Whether a picture can be answered right now.", "Health", ("503",), "Health")
    ready["responses"]["503"]["description"] = "Not ready; the answer says why."
    metrics = _operation("The gateway's numbers, for Prometheus.", None, _LOOKING, "VisionProblem")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{model_name} on Triton",
            "version": "1",
            "description": "Questions about pictures. Send an API key, where one is needed, as Authorization: Bearer.",
        },
        "paths": {
            "/v1/chat/vision": {"post": vision},
            "/v1/chat/completions": {"post": chat},
            "/v1/models": {"get": _operation("The model that answers here.", "Models", _LOOKING, "Problem")},
            "/v1/models/{name}": {"get": model},
            "/v1/tokenize": {"post": tokenize},
            "/health/live": {"get": _operation("Whether the process runs.", "Health", (), "Health")},
            "/health/ready": {"get": ready},
            "/metrics": {"get": metrics},
        },
        "components": {
            "schemas": {**definitions["$defs"], **_ANSWERS},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        "security": [{}, {"bearer": []}, {"header": []}],
    }


def _operation(
    summary: str, answer: str | None, refusals: tuple[str, ...], problem: str, streams: bool = False
) -> dict[str, Any]:
    content: dict[str, Any] = {"text/plain": {"schema": _TEXT}}
    if answer is not None:
        content = _json(answer)
    if streams:
        content[MIMETYPE] = {"schema": _TEXT}
    responses: dict[str, Any] = {"200": {"description": "The answer.", "content": content}}
    for status in sorted(refusals):
        responses[status] = {"description": _WHY[status], "content": _json(problem)}
    return {"summary": summary, "responses": responses}


def _body(name: str) -> dict[str, Any]:
    return {"required": True, "content": _json(name)}


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
