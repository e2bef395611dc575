"""What a client may send to /v1/chat/vision, and the sentence that answers each mistake."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Annotated, Any

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from glmserve.errors import InvalidInput
from glmserve.limits import MAX_NEW_TOKENS, MAX_STOP_CHARS, MAX_STOP_STRINGS

DEFAULT_MAX_TOKENS = 512
DEFAULT_TEMPERATURE = 0.7
_LARGEST_SEED = 2**63 - 1
_LARGEST_TOP_K = 2**31 - 1


@dataclass(frozen=True)
class Sampling:
    """How the next token is picked; a temperature of 0 is greedy and a `top_k` of 0 no bound."""

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int


@dataclass(frozen=True)
class Question:
    """One request with every default filled in; `image` is base64 or a data URL, still as it was sent."""

    image: str
    prompt: str
    sampling: Sampling
    stop: tuple[str, ...]
    thinking: bool


def parse_question(body: bytes) -> Question:
    """The question in a request body; raises InvalidInput with a sentence that names the field at fault."""
    try:
        document = pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError:
        raise InvalidInput("The request body is not valid JSON.") from None
    if not isinstance(document, dict):
        raise InvalidInput("The request body must be a JSON object with the fields image and prompt.")
    try:
        return _VisionBody.model_validate(document).question()
    except ValidationError as error:
        raise _named(error, document) from None


_MaxTokens = Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)]
_Stop = Annotated[str, StringConstraints(min_length=1, max_length=MAX_STOP_CHARS)]


class _VisionBody(BaseModel):
    """The body as sent: null stands for an absent field, and fields that we do not know are passed over."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False, hide_input_in_errors=True)

    image: Annotated[str, StringConstraints(min_length=1)]
    prompt: Annotated[str, StringConstraints(pattern=r"\S")]
    max_tokens: _MaxTokens | None = None
    max_new_tokens: _MaxTokens | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=_LARGEST_TOP_K)] | None = None
    seed: Annotated[int, Field(ge=0, le=_LARGEST_SEED)] | None = None
    stop: _Stop | Annotated[list[_Stop], Field(max_length=MAX_STOP_STRINGS)] | None = None
    thinking: bool | None = None

    def question(self) -> Question:
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        sampling = Sampling(
            max_tokens=self.max_tokens or self.max_new_tokens or DEFAULT_MAX_TOKENS,
            temperature=DEFAULT_TEMPERATURE if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=self.top_k or 0,
            seed=secrets.randbelow(_LARGEST_SEED) if self.seed is None else self.seed,
        )
        return Question(self.image, self.prompt, sampling, tuple(stop), bool(self.thinking))


_WANTED = {
    "image": "The field image must be a picture as a base64 string, or a data:image/...;base64, URL.",
    "prompt": "The field prompt must be a string that is not empty.",
    "max_tokens": f"The field max_tokens must be a whole number from 1 to {MAX_NEW_TOKENS}.",
    "max_new_tokens": f"The field max_new_tokens must be a whole number from 1 to {MAX_NEW_TOKENS}.",
    "temperature": "The field temperature must be a number from 0 to 2.",
    "top_p": "The field top_p must be a number above 0 and at most 1.",
    "top_k": f"The field top_k must be a whole number from 0 to {_LARGEST_TOP_K}.",
    "seed": "The field seed must be a whole number from 0 to 2^63 - 1.",
    "stop": f"The field stop must be a string or a list of at most {MAX_STOP_STRINGS} strings, "
    f"each of 1 to {MAX_STOP_CHARS} characters.",
    "thinking": "The field thinking must be true or false.",
}


def _named(error: ValidationError, document: dict[str, Any]) -> InvalidInput:
    field = str(error.errors(include_url=False, include_context=False, include_input=False)[0]["loc"][0])
    if document.get(field) is None:
        return InvalidInput(f"The request has no {field}. {_WANTED[field]}", field)
    return InvalidInput(_WANTED[field], field)
