"""The OpenAPI document, made from the very models that read requests."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from gateway.openapi.field_docs import MEANINGS, Meaning, explained
from gateway.openapi.operations import LOOKING, RouteDocs, asking, operation
from gateway.openapi.responses import ANSWERS, EXAMPLES, Schema
from gateway.schemas.common import Body
from gateway.schemas.multipart import FORM, URLENCODED
from gateway.schemas.openai import CompletionBody
from gateway.schemas.vision import VisionBody

_CHOICES = (("image", "images"), ("prompt", "question", "text"))
"""Of each of these fields a question about an image needs one."""
_FILE = {"type": "string", "format": "binary"}
_IMAGES: dict[str, Schema] = {
    "image": {**_FILE, "description": "The image, as a file."},
    "images": {"type": "array", "items": _FILE, "description": "Several images, as files of this same name."},
}
_CHOSEN = [{"anyOf": [{"required": [name]} for name in names]} for names in _CHOICES]
_PLAIN = ("string", "integer", "number", "boolean")


def document(model_name: str, thinks: bool, families: tuple[RouteDocs, ...]) -> dict[str, Any]:
    """The document that /openapi.json serves.

    `thinks` is whether /v1/chat/completions does so unasked, `families` what the folders of other routes tell.
    """
    bodies = _bodies(thinks, families)
    vision = asking(
        "Ask about one or several images.",
        VisionBody,
        "VisionAnswer",
        "VisionProblem",
        streams=True,
    )
    vision["requestBody"]["description"] = (
        f"As {FORM} the same fields may come, with images as files; as {URLENCODED}, with images as base64."
    )
    vision["requestBody"]["content"][FORM] = {"schema": _form(bodies["VisionBody"])}
    chat = asking("OpenAI's chat completions.", CompletionBody, "Completion", streams=True)
    hosted = asking("The same as /v1/chat/completions, as SageMaker asks.", CompletionBody, "Completion", streams=True)
    metrics = operation("The gateway's numbers, for Prometheus.", None, LOOKING, "VisionProblem")
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": f"{model_name} on Triton",
            "version": "1",
            "description": "Questions about images. Send an API key, where one is needed, as Authorization: Bearer. "
            "Addresses answer without /v1, and with a slash at their end, too.",
        },
        "paths": {
            "/v1/chat/vision": {"post": vision},
            "/v1/chat/completions": {"post": chat},
            "/v1/invocations": {"post": hosted},
            **{path: methods for family in families for path, methods in family.paths.items()},
            "/metrics": {"get": metrics},
        },
        "components": {
            "schemas": {
                **bodies,
                **ANSWERS,
                **{name: schema for family in families for name, schema in family.answers.items()},
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        "security": [{}, {"bearer": []}, {"header": []}],
    }
    _show_examples(made["paths"], EXAMPLES | {n: e for family in families for n, e in family.examples.items()})
    return made


def _bodies(thinks: bool, families: tuple[RouteDocs, ...]) -> dict[str, Schema]:
    """The schemas of all bodies and their parts; null stands for an absent field, so it is no default."""
    meanings: dict[type[Body], dict[str, Meaning]] = {VisionBody: MEANINGS, CompletionBody: MEANINGS}
    meanings |= {
        body: family.meanings | {name: meaning for name, meaning in MEANINGS.items() if name not in family.meanings}
        for family in families
        for body in family.bodies
    }
    _, made = models_json_schema(
        [(model, "validation") for model in meanings], ref_template="#/components/schemas/{model}"
    )
    schemas: dict[str, Schema] = made["$defs"]
    for schema in schemas.values():
        for field in schema.get("properties", {}).values():
            field.pop("default", None)
    for model, told in meanings.items():
        schemas[model.__name__] = explained(schemas[model.__name__], told)
    schemas["CompletionBody"]["properties"]["thinking"]["default"] = thinks
    schemas["VisionBody"]["allOf"] = _CHOSEN
    return schemas


def _form(body: Schema) -> Schema:
    """The same fields in a form: images as files, and JSON for what is neither words nor a number."""
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


def _show_examples(paths: dict[str, dict[str, Schema]], examples: dict[str, Schema]) -> None:
    """Puts an example beside each body and answer that has one."""
    for operation_ in (each for methods in paths.values() for each in methods.values()):
        shown = [operation_["requestBody"]] if "requestBody" in operation_ else []
        for content in (part["content"] for part in (*shown, *operation_["responses"].values())):
            name = content.get("application/json", {}).get("schema", {}).get("$ref", "").rpartition("/")[2]
            if name in examples:
                content["application/json"]["example"] = examples[name]
