"""Makes the bodies that Schemathesis generates worth sending: random text is no image, and would get no further."""

from __future__ import annotations

import base64
import io
from typing import Any

import schemathesis
from PIL import Image

from gateway.deadline import DEADLINE_HEADER, LEAST_DEADLINE_S
from glmserve.limits import MAX_ANSWERS

KEPT_S = 10.0


def _image() -> str:
    file = io.BytesIO()
    Image.effect_noise((40, 30), 60).convert("RGB").save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


IMAGE = _image()


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: Any) -> None:
    """Gives a deadline that a busy machine keeps; a shorter one is rightly a 504."""
    if not case.headers or DEADLINE_HEADER not in case.headers:
        return
    try:
        sent = float(case.headers[DEADLINE_HEADER])
    except ValueError:
        return
    if LEAST_DEADLINE_S <= sent < KEPT_S:
        case.headers[DEADLINE_HEADER] = str(KEPT_S)


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    """Puts an image wherever a body holds text that should be one, and a question at the end of messages."""
    if not isinstance(body, dict):
        return body
    body = {**body}
    if isinstance(body.get("image"), str):
        body["image"] = IMAGE
    if isinstance(body.get("images"), list):
        body["images"] = [IMAGE if isinstance(one, str) else one for one in body["images"]]
    if isinstance(body.get("n"), int) and 1 < body["n"] <= MAX_ANSWERS:
        body["n"] = 1  # the stand-in gives no more
    if isinstance(body.get("messages"), list):
        body["messages"] = _messages(body["messages"])
        body.pop("model", None)  # every other name is a 404
        body.pop("tools", None)  # the demo's template takes none
    return body


def _messages(messages: list[Any]) -> list[Any]:
    """Every second conversation is one that can be answered, so that the other fields are looked at too."""
    asked = {"role": "user", "content": "Say [[yes]]"}
    return [asked] if len(repr(messages)) % 2 else [asked, *map(_message, messages), asked]


def _message(message: Any) -> Any:
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        return message
    return {**message, "content": [_part(part) for part in message["content"]]}


def _part(part: Any) -> Any:
    has_image = isinstance(part, dict) and isinstance(part.get("image_url"), str)
    return {**part, "image_url": f"data:image/jpeg;base64,{IMAGE}"} if has_image else part
