"""Settings read from environment variables, where a fault is a line that names its variable and what it must be."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from glmserve.errors import BadSettings

S = TypeVar("S", bound=BaseSettings)
_MUST_BE = {
    "int_parsing": "a whole number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "literal_error": "{expected}",
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "more than {gt:g}",
    "less_than_equal": "at most {le:g}",
}
"""What pydantic calls a fault, and what the value must be instead. Only of these is the value shown: it is a number or
a word, and no secret."""


def read_settings(kind: type[S], file: str | None = None, others: Iterable[str] = ()) -> S:
    """Settings from the variables that begin with their prefix, and below those from a file of NAME=value lines.

    Raises BadSettings with a line for every fault; a name that is no setting and none of `others` is one.
    """
    prefix = kind.model_config["env_prefix"]
    known = {prefix + name.upper() for name in kind.model_fields}
    found = {name.upper() for name in os.environ if name.upper().startswith(prefix)}
    faults = [_unknown(name, known) for name in sorted(found - known - set(others))]
    settings = None
    try:
        settings = kind(_env_file=file)
    except ValidationError as error:
        faults += [_fault(kind, prefix, known, details) for details in error.errors(include_url=False)]
    if settings is None or faults:
        raise BadSettings("\n".join(faults))
    return settings


def _fault(kind: type[BaseSettings], prefix: str, known: set[str], details: Any) -> str:
    """One of pydantic's faults in our words."""
    if not details["loc"]:  # the settings' own check of several together
        return str(details["ctx"]["error"])
    field = str(details["loc"][0])
    if details["type"] == "extra_forbidden":
        return _unknown(field.upper(), known)
    name, about = prefix + field.upper(), kind.model_fields[field]
    if details["type"] in _MUST_BE:
        must = _MUST_BE[details["type"]].format(**details.get("ctx", {})).replace("'", "")
        other = f" or {about.default}" if about.default == "auto" else ""
        return f"{name}={details['input']}: must be {must}{other}."
    return f"{name}: is not what it must be. {about.description}"


def _unknown(name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, known, 1, cutoff=0.85)
    return f"{name}: no setting is called so{f'; {near[0]} is one' if near else ''}."
