"""The fields of an answer that every chat route takes, each with the words that say what it must be."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from gateway.schemas.json_reader import parse_json
from glmserve.errors import InvalidInput
from glmserve.limits import (
    MAX_GRAMMAR_BYTES,
    MAX_LOGPROBS,
    MAX_NEW_TOKENS,
    MAX_REPETITION_PENALTY,
    MAX_STOP_CHARS,
    MAX_STOP_IDS,
    MAX_STOP_STRINGS,
    MIN_REPETITION_PENALTY,
)

DEFAULT_MAX_TOKENS = 512
DEFAULT_TEMPERATURE = 0.7
ANY_OBJECT = {"type": "object"}
_LARGEST_SEED = 2**63 - 1
_LARGEST_INT32 = 2**31 - 1


@dataclass(frozen=True)
class Sampling:
    """How the next token is picked; a temperature of 0 is greedy, a `top_k` or `min_p` of 0 no bound."""

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop_ids: tuple[int, ...] = ()
    logprobs: int = -1


Text = Annotated[str, StringConstraints(min_length=1)]
_Stop = Annotated[str, StringConstraints(min_length=1, max_length=MAX_STOP_CHARS)]
_TokenId = Annotated[int, Field(ge=0, le=_LARGEST_INT32)]
COUNT = f"a whole number from 1 to {MAX_NEW_TOKENS}"
FLAG = "true or false"


class Body(BaseModel):
    """A body as sent: null stands for an absent field, and fields that we do not know are passed over."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False, hide_input_in_errors=True)


class NamedSchema(Body):
    """A JSON Schema as OpenAI wraps it."""

    schema_: dict[str, Any] = Field(alias="schema")


class ResponseFormat(Body):
    """What an answer must look like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


class ThinkingSwitch(Body):
    """Thinking as clients of the model's own cloud service switch it."""

    type: Literal["enabled", "disabled"]


class ThinkingFields(Body):
    """Whether the model thinks first."""

    thinking: bool | ThinkingSwitch | None = Field(
        default=None, description='true or false, or {"type": "enabled"} or {"type": "disabled"}'
    )

    def thinks(self) -> bool | None:
        """None where the request does not say."""
        if isinstance(self.thinking, ThinkingSwitch):
            return self.thinking.type == "enabled"
        return self.thinking


class AnswerFields(ThinkingFields):
    """How an answer is generated; each description completes the sentence "The field … must be …"."""

    max_tokens: int | None = Field(default=None, ge=1, le=MAX_NEW_TOKENS, description=COUNT)
    temperature: float | None = Field(default=None, ge=0, le=2, description="a number from 0 to 2")
    top_p: float | None = Field(default=None, gt=0, le=1, description="a number above 0 and at most 1")
    top_k: int | None = Field(
        default=None, ge=0, le=_LARGEST_INT32, description=f"a whole number from 0 to {_LARGEST_INT32}"
    )
    min_p: float | None = Field(default=None, ge=0, le=1, description="a number from 0 to 1")
    repetition_penalty: float | None = Field(
        default=None,
        ge=MIN_REPETITION_PENALTY,
        le=MAX_REPETITION_PENALTY,
        description=f"a number from {MIN_REPETITION_PENALTY:g} to {MAX_REPETITION_PENALTY:g}",
    )
    seed: int | None = Field(default=None, ge=0, le=_LARGEST_SEED, description="a whole number from 0 to 2^63 - 1")
    stop: _Stop | Annotated[list[_Stop], Field(max_length=MAX_STOP_STRINGS)] | None = Field(
        default=None,
        description=f"a string or a list of at most {MAX_STOP_STRINGS} strings, "
        f"each of 1 to {MAX_STOP_CHARS} characters",
    )
    stop_token_ids: list[_TokenId] | None = Field(
        default=None, max_length=MAX_STOP_IDS, description=f"a list of at most {MAX_STOP_IDS} token ids"
    )
    logprobs: bool | None = Field(default=None, description=FLAG)
    top_logprobs: int | None = Field(
        default=None, ge=0, le=MAX_LOGPROBS, description=f"a whole number from 0 to {MAX_LOGPROBS}"
    )
    response_format: ResponseFormat | None = Field(
        default=None,
        description='{"type": "text"}, {"type": "json_object"}, '
        'or {"type": "json_schema", "json_schema": {"schema": {...}}}',
    )

    def sampling(self, max_tokens: int | None) -> Sampling:
        """The fields with their defaults; raises InvalidInput for two that contradict each other."""
        if self.top_logprobs and not self.logprobs:
            raise InvalidInput("The field top_logprobs needs logprobs to be true.", "top_logprobs")
        return Sampling(
            max_tokens=self.max_tokens or max_tokens or DEFAULT_MAX_TOKENS,
            temperature=DEFAULT_TEMPERATURE if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=self.top_k or 0,
            seed=random.randrange(_LARGEST_SEED) if self.seed is None else self.seed,
            min_p=self.min_p or 0.0,
            repetition_penalty=1.0 if self.repetition_penalty is None else self.repetition_penalty,
            stop_ids=tuple(self.stop_token_ids or ()),
            logprobs=(self.top_logprobs or 0) if self.logprobs else -1,
        )

    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def grammar(self) -> bytes:
        """The JSON Schema of the answer, empty for free text; raises InvalidInput when there is none to be had."""
        wanted = self.response_format
        if wanted is None or wanted.type == "text":
            return b""
        if self.thinks():
            raise InvalidInput("The fields response_format and thinking cannot be used together.", "response_format")
        if wanted.type == "json_object":
            return _packed(ANY_OBJECT)
        if wanted.json_schema is None:
            raise InvalidInput("The field response_format needs json_schema with a schema in it.", "response_format")
        grammar = _packed(wanted.json_schema.schema_)
        if len(grammar) > MAX_GRAMMAR_BYTES:
            raise InvalidInput(
                f"The schema in response_format has {len(grammar)} bytes; at most {MAX_GRAMMAR_BYTES} are accepted.",
                "response_format",
            )
        return grammar


def read_json(body: bytes, needed: str) -> dict[str, Any]:
    """The object in a request body; raises InvalidInput, naming the fields that are `needed` to who sent no object."""
    try:
        document = parse_json(body)
    except ValueError:
        raise InvalidInput("The request body is not valid JSON.") from None
    if not isinstance(document, dict):
        raise InvalidInput(f"The request body must be a JSON object with the fields {needed}.")
    return document


def refusal(error: ValidationError, document: dict[str, Any], body: type[Body]) -> InvalidInput:
    """The sentence for the first mistake: what the field that holds it must be."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = str(first["loc"][0])
    path = _path(document, first["loc"])
    wanted = f"The field {field} must be {body.model_fields[field].description}."
    if document.get(field) is None:
        return InvalidInput(f"The request has no {field}. {wanted}", field)
    return InvalidInput(wanted if path == field else f"{wanted} Look at {path}.", path)


def _path(document: Any, places: tuple[int | str, ...]) -> str:
    """Where the mistake is, as far as it exists in what was sent: pydantic adds names of types on the way."""
    path, here = "", document
    for place in places:
        if isinstance(here, dict) and place in here:
            path, here = f"{path}.{place}" if path else str(place), here[place]
        elif isinstance(here, list) and isinstance(place, int) and place < len(here):
            path, here = f"{path}[{place}]", here[place]
    return path


def _packed(schema: dict[str, Any]) -> bytes:
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
