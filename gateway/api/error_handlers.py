"""Turns every failure into a JSON response, in the shape that its route's clients read; no other module does."""

from __future__ import annotations

from http import HTTPStatus
from typing import Protocol

import structlog
from flask import Flask, Response, current_app, g, jsonify, request
from werkzeug.exceptions import HTTPException

from gateway.api.paths import is_known_api
from gateway.errors import Forbidden, LateAnswer, RateLimited, Unauthorized
from gateway.observability.request_record import RequestRecord
from glmserve.errors import (
    BackendDown,
    Cancelled,
    DeadlineExceeded,
    GlmServeError,
    InvalidInput,
    Overloaded,
    PromptTooLong,
)

RETRY_AFTER_S = 1
_SHAPES = "problem_shapes"
_OURS = {
    BackendDown.code: "The model cannot be reached at the moment; please try again.",
    Cancelled.code: "The request was cancelled.",
    DeadlineExceeded.code: "The answer took too long and was given up; please try again.",
    Overloaded.code: "The service is busy; please try again.",
}
_SHOWN_CHARS = 64
_OPENAI_CODES = {PromptTooLong.code: "context_length_exceeded"}
_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_HTTP = {
    400: "The request could not be read.",
    404: "There is nothing at this address.",
    405: "This address does not answer this method.",
    413: "The request body is too large.",
    415: "The request body must be JSON.",
}


class ProblemShape(Protocol):
    """How a family of routes writes a refusal."""

    def __call__(self, error: GlmServeError, request_id: str) -> dict[str, object]:
        """The body."""
        ...


def register(app: Flask, shapes: dict[str, ProblemShape]) -> None:
    """Handles every exception that a route raises; `shapes` are those of route families, by how their paths begin."""
    app.extensions[_SHAPES] = {**shapes, "/v1/chat/vision": problem_body, "/v1/": openai_problem}
    app.register_error_handler(GlmServeError, _from_tree)
    app.register_error_handler(HTTPException, _from_http)
    app.register_error_handler(Exception, _from_bug)


def sentence_for(error: GlmServeError) -> str:
    """What a client may read: the message of its own mistake, what would help against a deadline, or a fixed sentence
    for a failure of ours.

    The message of a failure may contain a path (as BadArtifact's does), so it goes into the log only.
    """
    if isinstance(error, InvalidInput | Unauthorized | Forbidden | RateLimited | LateAnswer):
        return error.message
    return _OURS.get(error.code, GlmServeError().message)


def _from_tree(error: GlmServeError) -> Response:
    record: RequestRecord = g.record
    record.error_code = error.code
    response = jsonify(_shape(request.path)(error, record.request_id))
    response.status_code = error.status
    if isinstance(error, RateLimited):
        response.headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        known_s = error.retry_after_s if isinstance(error, Overloaded | BackendDown) else None
        response.headers["Retry-After"] = str(known_s or RETRY_AFTER_S)
    return response


def _from_http(error: HTTPException) -> Response:
    """What the web framework refuses; a proxy in front would take a 404 of a route it knows for a dead deployment."""
    status, headers = error.code or 500, error.get_headers()
    sentence = _HTTP.get(status)
    if status == HTTPStatus.NOT_FOUND and is_known_api(request.path):
        status, headers = HTTPStatus.METHOD_NOT_ALLOWED, [("Allow", "")]
        sentence = f"This service has no {request.path[:_SHOWN_CHARS]}; GET /docs shows what it has."
    response = _from_tree(_HttpProblem(status, sentence))
    for header, value in headers:
        if header.lower() in ("allow", "retry-after"):
            response.headers[header] = value
    return response


def _from_bug(error: Exception) -> Response:
    structlog.get_logger().error("unexpected_error", request_id=g.record.request_id, exc_info=error)
    return _from_tree(GlmServeError())


class _HttpProblem(InvalidInput):
    """A refusal of the web framework, with the status it chose."""

    def __init__(self, status: int, sentence: str | None) -> None:
        try:
            name = HTTPStatus(status).phrase
        except ValueError:
            name = "Error"
        super().__init__(sentence or f"{name}.")
        self.status, self.code = status, name.lower().replace(" ", "_")  # type: ignore[misc]


def problem_body(error: GlmServeError, request_id: str) -> dict[str, object]:
    """A failure of /v1/chat/vision, as a response or as the last event of a stream."""
    return {"error": sentence_for(error), "success": False, "request_id": request_id}


def openai_problem(error: GlmServeError, request_id: str = "") -> dict[str, object]:
    """A failure in the form that OpenAI clients read."""
    kind = _OPENAI_TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error")
    code = _OPENAI_CODES.get(error.code, error.code)
    return {"error": {"message": sentence_for(error), "type": kind, "param": field_of(error), "code": code}}


def field_of(error: GlmServeError) -> str | None:
    """The part of the request that is at fault, where one is."""
    return error.field if isinstance(error, InvalidInput) else None


def _shape(path: str) -> ProblemShape:
    """That of the family whose paths begin so; a family's name is longer than the version that all begin with."""
    shapes: dict[str, ProblemShape] = current_app.extensions[_SHAPES]
    return next((shape for prefix, shape in shapes.items() if path.startswith(prefix)), problem_body)
