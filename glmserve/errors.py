"""The one tree of errors: each says its code, its HTTP status and whether trying again can help.

```
GlmServeError                internal             500
├─ InvalidInput              invalid_input        400   the caller's request; names the field
│  ├─ BadImage               bad_image            400
│  ├─ BadVideo               bad_video            400
│  └─ PromptTooLong          prompt_too_long      400
├─ TooLarge                  too_large            413
├─ Overloaded                overloaded           503   may retry
├─ BackendDown               backend_down         503   may retry
├─ DeadlineExceeded          deadline_exceeded    504   may retry
├─ NumericFault              numeric_fault        500   the model's numbers were not finite
├─ Cancelled                 cancelled            499
├─ DoesNotFit                does_not_fit         500   the settings ask for more memory than there is
├─ BadSettings               bad_settings         500   unknown or invalid setting
└─ BadArtifact               bad_artifact         500   a build or checkpoint that must not be served
   ├─ UnknownArchitecture    bad_artifact         500   a checkpoint of a model that this project does not serve
   └─ NotCertified           bad_artifact         500   a build without a valid certificate
      └─ Disproved           bad_artifact         500   a build whose answers differ from the checkpoint's
```

A message is written for the person who will read it and never holds a foreign library's text.
"""

from __future__ import annotations

from typing import ClassVar


class GlmServeError(Exception):
    """Something failed on our side; the base of every error we raise on purpose."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    may_retry: ClassVar[bool] = False

    def __init__(self, message: str = "The service failed to answer this request.") -> None:
        super().__init__(message)
        self.message = message


class InvalidInput(GlmServeError):
    """The request is wrong and stays wrong when sent again; `field` names the part at fault."""

    code = "invalid_input"
    status = 400

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class BadImage(InvalidInput):
    """The bytes in an image field are not an image we accept."""

    code = "bad_image"


class BadVideo(InvalidInput):
    """The bytes in a video field are not a video we accept."""

    code = "bad_video"


class PromptTooLong(InvalidInput):
    """Prompt and image tokens leave no room in the context."""

    code = "prompt_too_long"


class TooLarge(InvalidInput):
    """The body holds more bytes than the limit."""

    code = "too_large"
    status = 413


class Overloaded(GlmServeError):
    """The wait queue is full; `retry_after_s` is when a place is likely to be free, if that is known."""

    code = "overloaded"
    status = 503
    may_retry = True

    def __init__(self, message: str = "The service is busy.", retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BackendDown(GlmServeError):
    """The engine cannot be reached or has stopped; `retry_after_s` is when it is likely back, if that is known."""

    code = "backend_down"
    status = 503
    may_retry = True
    retry_after_s: int | None = None


class DeadlineExceeded(GlmServeError):
    """The request's time ran out before its answer was complete."""

    code = "deadline_exceeded"
    status = 504
    may_retry = True


class NumericFault(GlmServeError):
    """The model's numbers for this one request stopped being finite, so no token could be drawn."""

    code = "numeric_fault"


class Cancelled(GlmServeError):
    """The client went away or asked to stop; a normal ending."""

    code = "cancelled"
    status = 499


class BadArtifact(GlmServeError):
    """A build or a checkpoint is incomplete, altered, or made for another version."""

    code = "bad_artifact"


class UnknownArchitecture(BadArtifact):
    """A checkpoint of a model that this project does not serve."""


class NotCertified(BadArtifact):
    """A build without a certificate, or with one that does not speak for it."""


class Disproved(NotCertified):
    """A build whose certificate says that it does not compute what its checkpoint does."""


class BadSettings(GlmServeError):
    """Settings that cannot be read, a line of the message for each fault; raised while starting."""

    code = "bad_settings"


class DoesNotFit(GlmServeError):
    """A deployment's settings ask for more memory than the device has; raised while starting."""

    code = "does_not_fit"


_BY_CODE: dict[str, type[GlmServeError]] = {
    kind.code: kind
    for kind in (
        GlmServeError,
        InvalidInput,
        BadImage,
        BadVideo,
        PromptTooLong,
        TooLarge,
        Overloaded,
        BackendDown,
        DeadlineExceeded,
        NumericFault,
        Cancelled,
        DoesNotFit,
        BadSettings,
        BadArtifact,
    )
}


_RETRY_AFTER, _FIELD = ";retry_after_s=", ";field="


def to_wire(error: BaseException) -> str:
    """`code|message`, the only text that leaves a Triton model; a foreign error becomes a bare `internal`.

    `overloaded;retry_after_s=3|message` where it is known when to come back, `invalid_input;field=tools|message` where
    a field of the request is at fault.
    """
    if not isinstance(error, GlmServeError):
        return f"{GlmServeError.code}|{GlmServeError().message}"
    more = ""
    if isinstance(error, Overloaded) and error.retry_after_s:
        more = f"{_RETRY_AFTER}{error.retry_after_s}"
    elif isinstance(error, InvalidInput) and error.field:
        more = f"{_FIELD}{error.field}"
    return f"{error.code}{more}|{error.message}"


def from_wire(text: str) -> GlmServeError | None:
    """The error that `to_wire` wrote, or None if the text is somebody else's."""
    head, separator, message = text.partition("|")
    code, *more = head.strip().rsplit(" ", 1)[-1].split(";", 1)
    told = f";{more[0]}" if more else ""
    kind = _BY_CODE.get(code)
    if not separator or kind is None:
        return None
    if issubclass(kind, Overloaded):
        after = told.removeprefix(_RETRY_AFTER)
        return kind(message, int(after) if after.isdecimal() else None)
    if issubclass(kind, InvalidInput):
        return kind(message, told.removeprefix(_FIELD) if told.startswith(_FIELD) else None)
    return kind(message)
