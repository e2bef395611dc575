"""The OpenAPI document, made from the very models that read requests."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from gateway.deadline import DEADLINE_HEADER, LEAST_DEADLINE_S
from gateway.openapi.field_docs import explained
from gateway.openapi.responses import ANSWERS, EXAMPLES, Schema, said
from gateway.schemas.messages import MessagesBody
from gateway.schemas.multipart import FORM, URLENCODED
from gateway.schemas.openai import CompletionBody
from gateway.schemas.vision import VisionBody
from gateway.streaming.sse import MIMETYPE

_WHY = {
    "400": "The request is wrong; the answer names the field.",
    "401": "An API key is needed, and this is none.",
    "403": "This key, address or page may not do this.",
    "404": "There is no such model.",
    "413": "The request is too large.",
    "415": "The body's Content-Type is not one that this route reads.",
    "429": "The caller's own limit is used up; Retry-After says when there will be room.",
    "500": "The service failed.",
    "503": "The service is full or starting; Retry-After says when to come back.",
    "504": "Time ran out.",
}
_ASKING = ("400", "401", "403", "413", "415", "429", "500", "503", "504")
_LOOKING = ("401", "403", "429")
_CHOICES = (("image", "images"), ("prompt", "question", "text"))
"""Of each of these fields a question about a picture needs one."""
_FILE = {"type": "string", "format": "binary"}
_IMAGES: dict[str, Schema] = {
    "image": {**_FILE, "description": "The picture, as a file."},
    "images": {"type": "array", "items": _FILE, "description": "Several pictures, as files of this same name."},
}
_CHOSEN = [{"anyOf": [{"required": [name]} for name in names]} for names in _CHOICES]
_PLAIN = ("string", "integer", "number", "boolean")


def document(model_name: str, thinks: bool) -> dict[str, Any]:
    """The document that /openapi.json serves; `thinks` is whether /v1/chat/completions does so unasked."""
    bodies = _bodies(thinks)
    vision = _operation("Ask about one or several pictures.", "VisionAnswer", _ASKING, "VisionProblem", streams=True)
    vision["requestBody"] = _body("VisionBody")
    vision["requestBody"]["description"] = (
        f"As {FORM} the same fields may come, with pictures as files; as {URLENCODED}, with pictures as base64."
    )
    vision["requestBody"]["content"][FORM] = {"schema": _form(bodies["VisionBody"])}
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
    model["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": said("string")}]
    ready = _operation("Whether a picture can be answered right now.", "Health", ("403", "503"), "Health")
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
            "schemas": {**bodies, **ANSWERS},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        "security": [{}, {"bearer": []}, {"header": []}],
    }


def _bodies(thinks: bool) -> dict[str, Schema]:
    """The schemas of all bodies and their parts; null stands for an absent field, so it is no default."""
    models = (VisionBody, CompletionBody, MessagesBody)
    _, made = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    schemas: dict[str, Schema] = made["$defs"]
    for schema in schemas.values():
        for field in schema["properties"].values():
            field.pop("default", None)
    schemas |= {model.__name__: explained(schemas[model.__name__]) for model in models}
    schemas["CompletionBody"]["properties"]["thinking"]["default"] = thinks
    schemas["VisionBody"]["allOf"] = _CHOSEN
    return schemas


def _form(body: Schema) -> Schema:
    """The same fields in a form: pictures as files, and JSON for what is neither words nor a number."""
    return {
        "type": "object",
        "properties": {name: _form_field(name, field) for name, field in body["properties"].items()},
        "allOf": _CHOSEN,
    }


def _form_field(name: str, field: Schema) -> Schema:
    if name in _IMAGES:
        return _IMAGES[name]
    kinds = [kind for kind in field["anyOf"] if kind.get("type") != "null"]
    is_plain = len(kinds) == 1 and kinds[0].get("type") in _PLAIN
    as_json = {"type": "string", "contentMediaType": "application/json"}
    kept = {key: field[key] for key in ("description", "default") if key in field and (is_plain or key != "default")}
    return {**(kinds[0] if is_plain else as_json), **kept}


def _operation(
    summary: str, answer: str | None, refusals: tuple[str, ...], problem: str, streams: bool = False
) -> dict[str, Any]:
    content: dict[str, Any] = {"text/plain": {"schema": said("string")}}
    if answer is not None:
        content = _json(answer)
    if streams:
        content[MIMETYPE] = {"schema": said("string")}
    responses: dict[str, Any] = {"200": {"description": "The answer.", "content": content}}
    for status in sorted(refusals):
        responses[status] = {"description": _WHY[status], "content": _json(problem)}
    return {"summary": summary, "responses": responses}


def _body(name: str) -> dict[str, Any]:
    return {"required": True, "content": _json(name)}


def _json(name: str) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{name}"}}
    if name in EXAMPLES:
        content["example"] = EXAMPLES[name]
    return {"application/json": content}
