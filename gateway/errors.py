"""Errors of the web layer: authentication, rate limits and unknown models."""

from __future__ import annotations

from glmserve.errors import DeadlineExceeded, GlmServeError, InvalidInput


class LateAnswer(DeadlineExceeded):
    """The request's time ran out; the message is for its client and says what would help."""


class UnknownModel(InvalidInput):
    """A model that this gateway does not serve."""

    code = "model_not_found"
    status = 404


class NotJson(InvalidInput):
    """A body of a kind that this route does not read."""

    code = "unsupported_media_type"
    status = 415

    def __init__(self, message: str, header: str = "Content-Type") -> None:
        super().__init__(message, header)


class BadKeyFile(GlmServeError):
    """The file of API keys cannot be read, or cannot be changed as asked."""

    code = "bad_key_file"


class Unauthorized(GlmServeError):
    """No API key, or an unknown one."""

    code = "invalid_api_key"
    status = 401


class Forbidden(GlmServeError):
    """A key whose role does not allow this, an address outside the allowed networks, or another site's page."""

    code = "forbidden"
    status = 403


class RateLimited(GlmServeError):
    """The caller's rate limit is used up until `retry_after_s` has passed."""

    code = "rate_limit_exceeded"
    status = 429
    may_retry = True

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
