"""Turns every failure into a JSON response; no other module does."""

from __future__ import annotations

from http import HTTPStatus

import structlog
from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException

from gateway.errors import Forbidden, LateAnswer, RateLimited, Unauthorized
from gateway.observability.request_record import RequestRecord
from glmserve.errors import BackendDown, Cancelled, DeadlineExceeded, GlmServeError, InvalidInput, Overloaded

RETRY_AFTER_S = 1
_OURS = {
    BackendDown.code: "The model cannot be reached at the moment; please try again.",
    Cancelled.code: "The request was cancelled.",
    DeadlineExceeded.code: "The answer took too long and was given up; please try again.",
    Overloaded.code: "The service is busy; please try again.",
}
_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_HTTP = {
    400: "The request could not be read.",
    404: "There is nothing at this address.",
    405: "This address does not answer this method.",
    413: "The request body is too large.",
    415: "The request body must be JSON.",
}


def register(app: Flask) -> None:
    """Handles every exception that a route raises."""
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
    field = error.field if isinstance(error, InvalidInput) else None
    response = _problem(error.code, sentence_for(error), error.status, field)
    if isinstance(error, RateLimited):
        response.headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        known_s = error.retry_after_s if isinstance(error, Overloaded | BackendDown) else None
        response.headers["Retry-After"] = str(known_s or RETRY_AFTER_S)
    return response


def _from_http(error: HTTPException) -> Response:
    status = error.code or 500
    try:
        name = HTTPStatus(status).phrase
    except ValueError:
        name = "Error"
    response = _problem(name.lower().replace(" ", "_"), _HTTP.get(status, f"{name}."), status)
    for header, value in error.get_headers():
        if header.lower() in ("allow", "retry-after"):
            response.headers[header] = value
    return response


def _from_bug(error: Exception) -> Response:
    structlog.get_logger().error("unexpected_error", request_id=g.record.request_id, exc_info=error)
    return _from_tree(GlmServeError())


def problem_body(error: GlmServeError, request_id: str) -> dict[str, object]:
    """A failure as the last event of a stream, in the same words as in a response."""
    return {"error": sentence_for(error), "success": False, "request_id": request_id}


def openai_problem(error: GlmServeError) -> dict[str, object]:
    """A failure in the form that OpenAI clients read."""
    field = error.field if isinstance(error, InvalidInput) else None
    return _openai(error.code, sentence_for(error), error.status, field)


def _openai(code: str, sentence: str, status: int, field: str | None) -> dict[str, object]:
    kind = _OPENAI_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": sentence, "type": kind, "param": field, "code": code}}


def _problem(code: str, sentence: str, status: int, field: str | None = None) -> Response:
    record: RequestRecord = g.record
    record.error_code = code
    if request.path.startswith("/v1/") and not request.path.startswith("/v1/chat/vision"):
        response = jsonify(_openai(code, sentence, status, field))
    else:
        response = jsonify(error=sentence, success=False, request_id=record.request_id)
    response.status_code = status
    return response
