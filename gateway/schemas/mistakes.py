"""The sentence that answers a mistake in a body: which field, what it must be, and what came."""

from __future__ import annotations

import json
import math
from typing import Any

from pydantic_core import ErrorDetails, PydanticCustomError

from glmserve.model.tool_parser import FUNCTION_NAME

TOKEN_ID = r"^[0-9]{1,9}$"
SOMETHING = r"\S"
IS_MISSING = "is missing"
OURS = "said"
"""The type of a mistake that a validator of ours has put into words itself."""
_MOST_SHOWN_CHARS = 40
_MOST_NAME_CHARS = 128
_NO_SUCH_TYPE = ("literal_error", "missing")
_PATTERNS = {
    FUNCTION_NAME: "1 to 64 letters, digits and ._-",
    TOKEN_ID: "a token id",
    SOMETHING: "a text that is not blank",
}
"""What a text must be, in words, by the expression that it must match."""
_WANTED = {
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a number",
}
_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}


def said(words: str) -> PydanticCustomError:
    """What a validator raises to end the sentence "The field … " itself."""
    return PydanticCustomError(OURS, "{words}", {"words": words})


def mistake(errors: list[ErrorDetails], document: Any) -> tuple[str, str]:
    """The path of the first mistake, and what is wrong there: both for "The field {path} {words}.".

    A value may be one of several kinds, and then each of them has its error; the one that got furthest counts.
    """
    paths = [path_of(document, error) for error in errors]
    field = errors[0]["loc"][:1]
    mine = [i for i, error in enumerate(errors) if error["loc"][:1] == field and paths[i].startswith(paths[0])]
    mine = _of_the_list_meant(_of_the_kind_meant(mine, errors, document), errors, document)
    path = paths[max(mine, key=lambda i: (len(paths[i]), -i))]
    return path, _words([errors[i] for i in mine if paths[i] == path])


def _of_the_kind_meant(mine: list[int], errors: list[ErrorDetails], document: Any) -> list[int]:
    """Without the mistakes of kinds that another `type` names; where none is named, only those of the type count."""

    def kind(i: int) -> object:
        place = errors[i]["loc"][1:2]
        sent = document.get(errors[i]["loc"][0])
        return place[0] if len(errors[i]["loc"]) > 2 and isinstance(sent, dict) and place[0] not in sent else None

    of_type = [i for i in mine if kind(i) and errors[i]["loc"][2:] == ("type",) and errors[i]["type"] in _NO_SUCH_TYPE]
    others = {kind(i) for i in of_type}
    meant = [i for i in mine if kind(i) and kind(i) not in others]
    return meant or of_type or mine


def _of_the_list_meant(mine: list[int], errors: list[ErrorDetails], document: Any) -> list[int]:
    """Of a list that may be of several kinds, only the mistakes of the kinds whose first mistake comes last. One that
    is too long is no worse than one whose first item is right."""
    if not mine or not isinstance(document, dict) or not isinstance(document.get(errors[mine[0]]["loc"][0]), list):
        return mine
    first = dict[object, float]()
    for i in mine:
        kind, *places = errors[i]["loc"][1:] or ("",)
        if isinstance(kind, int):
            return mine  # there is one kind only
        at = places[0] if places and isinstance(places[0], int) else 0.5 if errors[i]["type"] == "too_long" else -1
        first[kind] = min(at, first.get(kind, math.inf))
    return [i for i in mine if first[(errors[i]["loc"][1:] or ("",))[0]] == max(first.values())]


def path_of(document: Any, error: ErrorDetails) -> str:
    """Where the mistake is, as far as it exists in what was sent: pydantic adds names of types on the way."""
    path, here = "", document
    places = error["loc"]
    for place in places:
        is_absent = error["type"] == "missing" and place is places[-1]
        if isinstance(here, dict) and (place in here or is_absent):
            path, here = f"{path}.{_name(place)}" if path else str(place), here.get(place)
        elif isinstance(here, list) and isinstance(place, int) and place < len(here):
            path, here = f"{path}[{place}]", here[place]
    return path


def _name(place: str | int) -> str:
    text = str(place)
    return text if len(text) <= _MOST_NAME_CHARS else f"{text[:_MOST_SHOWN_CHARS]}…"


def shown(value: Any) -> str:
    """What came, in a few words: never more than a line of it."""
    if value is None:
        return "null"
    if isinstance(value, bool | int | float | str):
        text = json.dumps(value[:_MOST_SHOWN_CHARS] if isinstance(value, str) else value, ensure_ascii=False)
        is_short = len(value) <= _MOST_SHOWN_CHARS if isinstance(value, str) else len(text) <= _MOST_SHOWN_CHARS
        return text if is_short else f"{text[:_MOST_SHOWN_CHARS].removesuffix(chr(34))}…{chr(34)}"
    return "a list" if isinstance(value, list) else "an object"


def _words(errors: list[ErrorDetails]) -> str:
    if all(error["type"] == "literal_error" for error in errors):
        accepted = dict.fromkeys(error["ctx"]["expected"] for error in errors)
        return f"is {shown(errors[0]['input'])}; accepted: {' or '.join(accepted)}"
    for error in errors:
        if error["type"] not in _WANTED:
            return _of_one(error)
    wanted = dict.fromkeys(_WANTED[error["type"]] for error in errors)
    return f"must be {' or '.join(wanted)} and is {shown(errors[0]['input'])}"


def _of_one(error: ErrorDetails) -> str:
    kind, facts = error["type"], error.get("ctx", {})
    if kind == OURS:
        return error["msg"]
    if kind == "missing":
        return IS_MISSING
    if kind == "too_long":
        return f"has too many items; at most {facts['max_length']} are accepted"
    if kind in ("too_short", "string_too_short"):
        return "is empty" if not error["input"] else f"is too short; at least {facts['min_length']} are needed"
    if kind == "string_too_long":
        return f"is too long; at most {facts['max_length']} characters are accepted"
    if kind == "string_pattern_mismatch":
        return f"is {shown(error['input'])}; it must be {_PATTERNS[facts['pattern']]}"
    if kind == "none_required":
        return "must be left out"
    if kind == "extra_forbidden":
        return "is not known here"
    if kind in _BOUNDS:
        word, name = _BOUNDS[kind]
        return f"is {shown(error['input'])}; it must be {word} {facts[name]}"
    return "is not what it must be"
