"""A multipart form as the fields and pictures it carries: what an HTML form or `curl -F` sends."""

from __future__ import annotations

import io
from typing import Any

from werkzeug.formparser import FormDataParser
from werkzeug.http import parse_options_header

from gateway.schemas.conversation import SentImage
from gateway.schemas.json_reader import parse_json
from gateway.schemas.vision import VisionBody
from glmserve.errors import InvalidInput
from glmserve.limits import MAX_IMAGES, MAX_STOP_STRINGS

FORM = "multipart/form-data"
_MAX_PARTS = MAX_IMAGES + MAX_STOP_STRINGS + len(VisionBody.model_fields)
_IMAGES = ("image", "images")
_WORDS = ("prompt", "question", "text", "system", "image")
_LISTS = ("images", "stop", "stop_token_ids")
_LISTS_OF_WORDS = ("images", "stop")


def read_form(body: bytes, content_type: str) -> tuple[dict[str, Any], tuple[SentImage, ...]]:
    """Fields by name and the files called image or images; raises InvalidInput when the body is no such form.

    A form carries text only: fields that are not words are read as JSON (`5`, `true`, `["a"]`). A list may also come as
    several fields of one name.
    """
    mimetype, options = parse_options_header(content_type)
    parser = FormDataParser(
        stream_factory=lambda *_, **__: io.BytesIO(),
        max_form_memory_size=len(body),
        max_form_parts=_MAX_PARTS,
        silent=False,
    )
    try:
        _, form, files = parser.parse(io.BytesIO(body), mimetype, len(body), options)
    except Exception as error:  # Werkzeug raises ValueError, its own 413, and more for broken boundaries
        raise InvalidInput(
            f"The request body is not a multipart form of at most {_MAX_PARTS} parts.", "image"
        ) from error
    images = tuple(SentImage(file.read(), name) for name in _IMAGES for file in files.getlist(name))
    if any(not image.data for image in images):
        raise InvalidInput("The file image is empty.", "image")
    return {name: _values(name, form.getlist(name)) for name in form}, images


def _values(name: str, texts: list[str]) -> Any:
    """What stood in all fields of one name; several where one is wanted are a list, and refused as such."""
    values = [_value(name, text) for text in texts]
    is_one = len(values) == 1 and (name not in _LISTS or values[0] is None or isinstance(values[0], list))
    return values[0] if is_one else values


def _value(name: str, text: str) -> Any:
    if name in _WORDS:
        return text
    try:
        value = parse_json(text)
    except ValueError:
        return text
    is_word = name in _LISTS_OF_WORDS and not isinstance(value, str | list | None)
    return text if is_word else value
