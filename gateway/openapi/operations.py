"""One address and method in the OpenAPI document: what it takes, what it answers, and how it refuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.deadline import DEADLINE_HEADER, LEAST_DEADLINE_S
from gateway.openapi.field_docs import Meaning
from gateway.openapi.responses import Schema, said
from gateway.schemas.common import Body
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
ASKING = ("400", "401", "403", "404", "413", "415", "429", "500", "503", "504")
LOOKING = ("401", "403", "429")


@dataclass(frozen=True)
class RouteDocs:
    """What a folder of routes tells the document.

    `paths` holds operations by address and method, `bodies` the models that read its requests, `meanings` what their
    fields mean where that differs from `field_docs`, `answers` schemas by name, `examples` values by those names.
    """

    paths: dict[str, dict[str, Schema]]
    bodies: tuple[type[Body], ...] = ()
    meanings: dict[str, Meaning] = field(default_factory=dict)
    answers: dict[str, Schema] = field(default_factory=dict)
    examples: dict[str, Schema] = field(default_factory=dict)


def asking(
    summary: str,
    body: type[Body],
    answer: str,
    problem: str = "Problem",
    streams: bool = False,
) -> Schema:
    """A POST that reads `body`; one that `streams` may be asked for an answer in pieces, and has a deadline."""
    made = operation(summary, answer, ASKING, problem, streams)
    made["requestBody"] = {"required": True, "content": _json(body.__name__)}
    if streams:
        text = "Seconds after which the answer is given up, where that is sooner than the service's own."
        seconds = {"type": "number", "minimum": LEAST_DEADLINE_S}
        made["parameters"] = [{"name": DEADLINE_HEADER, "in": "header", "description": text, "schema": seconds}]
    return made


def operation(
    summary: str, answer: str | None, refusals: tuple[str, ...], problem: str, streams: bool = False
) -> Schema:
    """Any address and method; without an `answer` in JSON it answers with plain text."""
    content: dict[str, Any] = {"text/plain": {"schema": said("string")}}
    if answer is not None:
        content = _json(answer)
    if streams:
        content[MIMETYPE] = {"schema": said("string")}
    responses: dict[str, Any] = {"200": {"description": "The answer.", "content": content}}
    for status in sorted(refusals):
        responses[status] = {"description": _WHY[status], "content": _json(problem)}
    return {"summary": summary, "responses": responses}


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
