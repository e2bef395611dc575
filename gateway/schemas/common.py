"""The fields of an answer that every chat route takes, each with the words that say what it must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, create_model, model_validator

from gateway.schemas.json_mistakes import json_mistake
from gateway.schemas.json_reader import parse_json
from gateway.schemas.mistakes import IS_MISSING, OURS, mistake, shown
from glmserve.errors import InvalidInput
from glmserve.limits import MAX_STOP_CHARS, MAX_STOP_STRINGS, MAX_STOP_TOKEN_IDS
from glmserve.sampling_parameters import BY_NAME, PARAMETERS, Parameter, Sampling, Value

_LARGEST_INT32 = 2**31 - 1


def is_blank(value: Any) -> bool:
    """Whether a text says nothing."""
    return isinstance(value, str) and (not value or value.isspace())


Text = Annotated[str, StringConstraints(min_length=1)]
_Stop = Annotated[str, StringConstraints(min_length=1, max_length=MAX_STOP_CHARS)]
_TokenId = Annotated[int, Field(ge=0, le=_LARGEST_INT32)]
MAX_TOKEN_IDS = 131_072
TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=MAX_TOKEN_IDS, fail_fast=True)]
FLAG = "true or false"
_LISTS_OF_TEXTS = ("images", "stop")
_MOST = next(parameter for parameter in PARAMETERS if parameter.name == "max_tokens")


class Body(BaseModel):
    """A body as sent: null stands for an absent field, and fields that we do not know are passed over.

    Each list in it ends with its first mistake: only that is told, and to make a hundred thousand takes a while.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False, hide_input_in_errors=True)


class ThinkingSwitch(Body):
    """Thinking as clients of the model's own cloud service switch it."""

    type: Literal["enabled", "disabled"]


class RequestBody(Body):
    """A whole body: what is blank in it stands for an absent field, as null does."""

    blank_texts: ClassVar[tuple[str, ...]] = ("stop",)
    """Fields in which blanks alone are a text all the same: an answer may end at them."""

    @model_validator(mode="before")
    @classmethod
    def _without_blanks(cls, sent: Any) -> Any:
        if not isinstance(sent, dict):
            return sent
        kept: dict[str, Any] = {}
        for name, value in sent.items():
            if name in _LISTS_OF_TEXTS and isinstance(value, list):
                value = [item for item in value if item != ""] or None
            is_absent = value == "" or (is_blank(value) and name not in cls.blank_texts)
            kept[name] = None if is_absent else value
        return kept


class ThinkingFields(RequestBody):
    """Whether the model thinks first."""

    thinking: bool | ThinkingSwitch | None = Field(
        default=None, description='true or false, or {"type": "enabled"} or {"type": "disabled"}'
    )
    enable_thinking: bool | None = Field(default=None, description=FLAG)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = Field(
        default=None, description='"none", "minimal", "low", "medium", "high", "xhigh" or "max"'
    )

    def thinks(self) -> bool | None:
        """None where the request does not say. This model thinks or does not, so every effort but the least is one."""
        if isinstance(self.thinking, ThinkingSwitch):
            return self.thinking.type == "enabled"
        if self.thinking is None and self.enable_thinking is None and self.reasoning_effort is not None:
            return self.reasoning_effort not in ("none", "minimal")
        return self.enable_thinking if self.thinking is None else self.thinking


_B = TypeVar("_B", bound=Body)


def with_parameters(named: Mapping[str, Parameter]) -> Callable[[type[_B]], type[_B]]:
    """A class decorator: gives a body one more optional field for each name, which reads that sampling parameter."""

    def extended(body: type[_B]) -> type[_B]:
        made: dict[str, Any] = {name: (parameter.type | None, _field(parameter)) for name, parameter in named.items()}
        return create_model(body.__name__, __base__=body, __doc__=body.__doc__, __module__=body.__module__, **made)

    return extended


def _field(parameter: Parameter) -> Any:
    if parameter.type is bool:
        return Field(default=None, description=parameter.wanted)
    least = parameter.minimum if parameter.sentinel is None else min(parameter.minimum, parameter.sentinel)
    bounds: dict[str, Any] = {"gt" if parameter.excludes_minimum else "ge": least}
    if not parameter.is_cut:
        bounds["le"] = parameter.maximum
    return Field(default=None, description=parameter.wanted, **bounds)


@with_parameters(BY_NAME)
class AnswerFields(ThinkingFields):
    """How an answer is generated; each description completes the sentence "The field … must be …"."""

    stop: _Stop | Annotated[list[_Stop], Field(max_length=MAX_STOP_STRINGS, fail_fast=True)] | None = Field(
        default=None,
        description=f"a string or a list of at most {MAX_STOP_STRINGS} strings, "
        f"each of 1 to {MAX_STOP_CHARS} characters",
    )
    stop_token_ids: list[_TokenId] | None = Field(
        default=None,
        max_length=MAX_STOP_TOKEN_IDS,
        fail_fast=True,
        description=f"a list of at most {MAX_STOP_TOKEN_IDS} token ids",
    )

    partial_on_timeout: bool | None = Field(default=None, description=FLAG)

    def sampling(self) -> Sampling:
        """The fields with their defaults; raises InvalidInput for two that contradict each other."""
        given = {name: value for name in self.model_fields_set if (value := getattr(self, name)) is not None}
        values: dict[str, Any] = {
            parameter.name: parameter.requested(_first(given, parameter)) for parameter in PARAMETERS
        }
        if _first(given, _MOST) is None:  # the default makes room for the fewest tokens that are asked for
            values[_MOST.name] = max(values[_MOST.name], values["min_tokens"])
        sampling = Sampling(**values, stop_token_ids=tuple(self.stop_token_ids or ()))
        if sampling.top_logprobs and not sampling.logprobs:
            raise InvalidInput("The field top_logprobs needs logprobs to be true.", "top_logprobs")
        return sampling

    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


def _first(given: Mapping[str, Any], parameter: Parameter) -> Value | None:
    """The value of the first of the parameter's fields that is given."""
    for name in parameter.request_names:
        if name in given:
            value: Value = given[name]
            return value
    return None


def read_json(body: bytes, needed: str) -> dict[str, Any]:
    """The object in a request body; raises InvalidInput, naming the fields that are `needed` to who sent no object."""
    wanted = f"a JSON object with the fields {needed}"
    if not body or body.isspace():
        raise InvalidInput(f"The request body is empty; it must be {wanted}.")
    try:
        document = parse_json(body)
    except ValueError as error:
        raise InvalidInput(f"The request body {json_mistake(body, error)}") from None
    if not isinstance(document, dict):
        raise InvalidInput(f"The request body must be {wanted} and is {shown(document)}.")
    return document


def read_as(model: type[_B], body: bytes, needed: str) -> _B:
    """The body as this model reads it; raises InvalidInput with a sentence that names the field at fault."""
    document = read_json(body, needed)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise refusal(error, document, model) from None


def refusal(error: ValidationError, document: dict[str, Any], body: type[Body]) -> InvalidInput:
    """The sentence for the first mistake: what the field that holds it must be."""
    errors = error.errors(include_url=False)
    field = str(errors[0]["loc"][0])
    if document.get(field) is None:
        wanted = f"The field {field} must be {body.model_fields[field].description}."
        return InvalidInput(f"The request has no {field}. {wanted}", field)
    path, words = mistake(errors, document)
    if path == field and errors[0]["type"] != OURS:
        return InvalidInput(f"The field {field} must be {body.model_fields[field].description}.", field)
    accepted = f" The field {field} must be {body.model_fields[field].description}." if words == IS_MISSING else ""
    return InvalidInput(f"The field {path} {words}.{accepted}", path)
