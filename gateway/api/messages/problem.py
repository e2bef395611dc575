"""A refusal or a failure in the form that Anthropic's clients read."""

from __future__ import annotations

from gateway.api.error_handlers import sentence_for
from glmserve.errors import GlmServeError

_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def messages_problem(error: GlmServeError, request_id: str) -> dict[str, object]:
    """The body of a response, or the data of a stream's error event."""
    kind = _KINDS.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": sentence_for(error)}, "request_id": request_id}
