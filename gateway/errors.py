"""Refusals that only a web server knows: who may come in, how often, and what is not here."""

from __future__ import annotations

from glmserve.errors import GlmServeError, InvalidInput


class UnknownModel(InvalidInput):
    """A model that this gateway does not serve."""

    code = "model_not_found"
    status = 404


class BadKeyFile(GlmServeError):
    """The file of API keys cannot be read, or cannot be changed as asked."""

    code = "bad_key_file"


class Unauthorized(GlmServeError):
    """No API key, or one that is none of ours."""

    code = "invalid_api_key"
    status = 401


class Forbidden(GlmServeError):
    """A known caller who may not do this, or an address that may not come in."""

    code = "forbidden"
    status = 403


class RateLimited(GlmServeError):
    """The caller's own limit is used up; `retry_after_s` is when there will be room again."""

    code = "rate_limit_exceeded"
    status = 429
    may_retry = True

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
