"""The fields and images of a form, whose values are all text: each becomes what JSON would have had there."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any, get_args

from gateway.errors import NotJson
from gateway.schemas.charset import text_of
from gateway.schemas.conversation import SentImage, SentVideo, Shown
from gateway.schemas.json_reader import parse_json
from gateway.schemas.multipart import FORMS, URLENCODED, FormPart, read_parts
from gateway.schemas.vision import Asked, VisionBody, parse_vision, vision_of
from glmserve.errors import InvalidInput
from glmserve.limits import MAX_IMAGES, MAX_STOP_STRINGS

_MOST_OTHERS = 24  # fields that one form sets beside images and stop strings
_MAX_PARTS = MAX_IMAGES + MAX_STOP_STRINGS + _MOST_OTHERS
_IMAGES = ("image", "images")
_FILES = (*_IMAGES, "video")
_WORDS = ("prompt", "question", "text", "system", "image")
_LISTS = ("images", "stop", "stop_token_ids")
_LISTS_OF_WORDS = ("images", "stop")
_SWITCHES = {name for name, field in VisionBody.model_fields.items() if bool in get_args(field.annotation)}
_ON, _OFF = ("true", "1", "on", "yes"), ("false", "0", "off", "no")
_CHARSET = "_charset_"  # the field in which HTML forms name their encoding
_ITEM = re.compile(r"(\w+)\[\d{0,3}\]")
_NUMBER = re.compile(r"[+-]?(\d{1,20}\.?\d{0,20}|\.\d{1,20})")


def read_vision(body: bytes, mimetype: str, content_type: str) -> Asked:
    """The request to /v1/chat/vision in a body of JSON or a form; raises InvalidInput and NotJson."""
    if mimetype == URLENCODED and body.lstrip()[:1] in (b"{", b"["):  # what `curl -d` says of any body
        raise NotJson(f"The body of this request is JSON, and its Content-Type is {URLENCODED}: say application/json.")
    if mimetype in FORMS:
        return vision_of(*read_form(body, content_type))
    return parse_vision(body)


def read_form(body: bytes, content_type: str) -> tuple[dict[str, Any], tuple[Shown, ...]]:
    """Fields by name and the files called image, images or video; raises InvalidInput when the body is no such form.

    A form carries text only: fields that are not words are read as JSON (`5`, `true`, `["a"]`), switches also as
    browsers write them (`on`, `1`). A list may come as several fields of one name, or of that name with brackets. Any
    field but an image may be a file of text.
    """
    parts = read_parts(body, content_type, _MAX_PARTS)
    charset = next((part.data.decode("latin-1") for part in parts if part.name == _CHARSET), "")
    files: dict[str, list[Shown]] = defaultdict(list)
    texts: dict[str, list[str]] = defaultdict(list)
    empty = ""
    for part in parts:
        name, is_item = _name(part.name)
        if part.is_file and name in _FILES:
            empty = empty if part.data else name
            kind = SentImage if name in _IMAGES else SentVideo
            files[name] += [kind(part.data, name)] if part.data else []
        elif part.is_file and name not in VisionBody.model_fields:
            texts[name].append("a file")
        elif name != _CHARSET:
            text = text_of(part.data, part.charset or charset, name)
            text = _mended(text) if name in _FILES and content_type.startswith(URLENCODED) else text
            texts["images" if is_item and name == "image" else name].append(text)
    sent = tuple(file for name in _FILES for file in files[name])
    if not sent and not any(texts.get(name) for name in _FILES):
        _explain_missing(parts, empty)
    return {name: _values(name, values) for name, values in texts.items()}, sent


def _name(sent: str) -> tuple[str, bool]:
    """A field's name without the brackets that PHP, Rails and jQuery add to lists, and whether there were any."""
    item = _ITEM.fullmatch(sent)
    return (item[1], True) if item and item[1] in (*_IMAGES, *_LISTS) else (sent, False)


def _mended(text: str) -> str:
    """Base64 whose + was not escaped arrives with blanks in their place."""
    head, comma, data = text.rpartition(",")
    return head + comma + data.strip(" ").replace(" ", "+")


def _explain_missing(parts: list[FormPart], empty: str) -> None:
    """Raises InvalidInput for a form whose image is an empty file, or stands in a field of another name."""
    if empty:
        raise InvalidInput(f"The file {empty} is empty.", empty)
    other = next((part.name for part in parts if part.is_file and part.name not in VisionBody.model_fields), None)
    if other is not None:
        raise InvalidInput(
            f"The request has no image: its file came as {other[:64]}. Images are sent as image or images, a video as "
            "video.",
            "image",
        )


def _values(name: str, texts: list[str]) -> Any:
    """What stood in all fields of one name; several where one is wanted are a list, and refused as such."""
    values = [_value(name, text) for text in texts if text.strip() or (text and name == "stop")]
    is_one = len(values) == 1 and (name not in _LISTS or values[0] is None or isinstance(values[0], list))
    return values[0] if is_one else values or None  # None: all were blank


def _value(name: str, text: str) -> Any:
    if name in _WORDS or (name == "video" and text.lstrip()[:1] not in ("{", "[")):
        return text
    word = text.strip()
    if name in _SWITCHES and word.lower() in _ON + _OFF:
        return word.lower() in _ON
    try:
        value = parse_json(word)
    except ValueError:
        return float(word) if _NUMBER.fullmatch(word) and name not in _LISTS_OF_WORDS else text
    is_word = name in _LISTS_OF_WORDS and not isinstance(value, str | list | None)
    return text if is_word else value
