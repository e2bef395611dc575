"""Finds the fields of a request that nothing here reads: known ones of other servers, and slips of the pen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from itertools import islice
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from gateway.schemas.common import Body, read_json, refusal
from gateway.schemas.known_fields import CHANGE_NOTHING, DECLINED
from glmserve.errors import InvalidInput

_B = TypeVar("_B", bound=Body)
_LEAST_ALIKE = 0.7
_MOST_TOLD = 5
_MOST_CHARS = 64
_UNPRINTABLE = re.compile(r"[^A-Za-z0-9_.\[\]-]")
_PASSED_OVER = {
    "ChatMessage": (
        "name",
        "tool_call_id",
        "refusal",
        "function_call",
        "cache_control",
        "annotations",
        "audio",
        "id",
        "index",
        "reasoning_details",
        "provider_specific_fields",
    ),
    "Part": ("annotations", "cache_control", "logprobs"),
    "ImageUrl": ("format",),
    "Call": ("id", "type", "index", "provider_specific_fields"),
    "Tool": ("cache_control",),
    "Function": ("strict",),
    "NamedSchema": ("name", "description", "strict"),
}
"""By the object that holds them: what clients send beside the fields that say anything to a model."""


def check_declined(document: dict[str, Any], read: BaseModel) -> None:
    """Raises InvalidInput, with what to do instead, for a field of other servers that would change the answer."""
    own = _names(type(read))
    for name, value in document.items():
        declined = None if name in own else DECLINED.get(name)
        if declined is not None and not declined.asks_for_nothing(value):
            raise InvalidInput(f"The field {name} is not supported here; {declined.remedy}.", name)


def read_knowing(
    model: type[_B], body: bytes, needed: str, answers: type[Body] | None = None
) -> tuple[_B, tuple[str, ...]]:
    """A body of a route of another service, and those of its fields, not of their parts, that nobody here knows.

    A route that counts what another one `answers` passes over the fields of that one's body, too.
    """
    document = read_json(body, needed)
    try:
        read = model.model_validate(document)
    except ValidationError as error:
        raise refusal(error, document, model) from None
    check_declined(document, read)
    theirs = _names(answers) if answers else {}
    sent = {name: True for name, value in document.items() if value is not None and name not in theirs}
    return read, unknown_fields(sent, read)


def unknown_fields(document: dict[str, Any], read: BaseModel) -> tuple[str, ...]:
    """The fields of a body that nobody here knows, each with the known one that it is likely meant to be; `read` is
    what was made of the body."""
    found = _unknown(document, read, "")
    told = tuple(_told(*each) for each in islice(found, _MOST_TOLD))  # to look for what is alike takes a while
    more = sum(1 for _ in found)
    return (*told, f"and {more} more") if more else told


def refusal_of_unknown(unknown: tuple[str, ...]) -> InvalidInput:
    """The sentence for unknown fields."""
    name = unknown[0].split(" ")[0]
    return InvalidInput(f"The request has fields that are not known here: {', '.join(unknown)}.", name)


def _unknown(document: dict[str, Any], read: BaseModel, path: str) -> Iterator[tuple[str, str, list[str]]]:
    """The path of each, its own name, and the names that are known in its place."""
    names = _names(type(read))
    passed_over = _PASSED_OVER.get(type(read).__name__, ()) if path else (*CHANGE_NOTHING, *DECLINED)
    for name, value in document.items():
        if name in names:
            yield from _inside(value, getattr(read, names[name]), f"{path}{name}")
        elif value is not None and name not in passed_over:
            yield f"{path}{name}", name, list(names)


def _inside(value: Any, read: Any, path: str) -> Iterator[tuple[str, str, list[str]]]:
    if isinstance(value, dict) and isinstance(read, BaseModel):
        yield from _unknown(value, read, f"{path}.")
    elif isinstance(value, list) and isinstance(read, list) and len(value) == len(read):
        for place, (item, item_read) in enumerate(zip(value, read, strict=True)):
            yield from _inside(item, item_read, f"{path}[{place}]")


def _names(model: type[BaseModel]) -> dict[str, str]:
    """The attribute of each field by its name in a request."""
    return {field.alias or name: name for name, field in model.model_fields.items()}


def _told(path: str, name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, 1, _LEAST_ALIKE) if len(name) <= _MOST_CHARS else []
    shown = _UNPRINTABLE.sub("?", path[-_MOST_CHARS:])
    return f"{shown} (do you mean {close[0]}?)" if close else shown
