"""Reads settings from environment variables; each fault is a line with the variable, its value and what is accepted."""

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
"""What pydantic calls a fault, and what is accepted instead. Only these faults show the value: it is a number or a
word, never a secret."""
_RENAMED = {
    "GLM_GATEWAY_PICTURE_TOKENS_PER_MINUTE": "GLM_GATEWAY_IMAGE_TOKENS_PER_MINUTE",
    "GLM_GATEWAY_ADDRESS_PICTURE_TOKENS_PER_MINUTE": "GLM_GATEWAY_ADDRESS_IMAGE_TOKENS_PER_MINUTE",
    "GLM_GATEWAY_DECODE_SLOTS": "GLM_GATEWAY_IMAGE_DECODERS",
    "GLM_ENGINE_PICTURE_CACHE_MIB": "GLM_ENGINE_IMAGE_CACHE_MIB",
    "GLM_ENGINE_PICTURE_READERS": "GLM_ENGINE_IMAGE_READERS",
    "GLM_ENGINE_RIDGE_TOKENS": "GLM_ENGINE_MIN_CHUNK_TOKENS",
}
"""Settings of 0.1.0 that have another name since 0.2.0."""


def read_settings(kind: type[S], file: str | None = None, others: Iterable[str] = ()) -> S:
    """Settings from the variables with their prefix; what these leave out comes from a file of NAME=value lines.

    Raises BadSettings with a line for every fault. A variable that is neither a setting nor one of `others` is a fault.
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
    """One of pydantic's faults as a line."""
    if not details["loc"]:  # the settings' own check of several together
        return str(details["ctx"]["error"])
    field = str(details["loc"][0])
    if details["type"] == "extra_forbidden":
        return _unknown(field.upper(), known)
    name, about = prefix + field.upper(), kind.model_fields[field]
    if details["type"] in _MUST_BE:
        must = _MUST_BE[details["type"]].format(**details.get("ctx", {})).replace("'", "")
        other = " or auto" if about.default == "auto" and "auto" not in must else ""
        return f"{name}={details['input']}: must be {must}{other}."
    return f"{name}: invalid value. {about.description}"


def _unknown(name: str, known: set[str]) -> str:
    if name in _RENAMED:
        return f"{name}: unknown setting; it is now called {_RENAMED[name]}."
    near = difflib.get_close_matches(name, known, 1, cutoff=0.85)
    return f"{name}: unknown setting{f'; did you mean {near[0]}?' if near else '.'}"
