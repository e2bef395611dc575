"""Pictures as files, and the two things every test of the route does: ask, and look at a refusal."""

from __future__ import annotations

import base64
import io
from typing import Any

from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

URL = "/v1/chat/vision"


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def base64_of(image: Image.Image, kind: str = "PNG", **options: Any) -> str:
    return base64.b64encode(file_of(image, kind, **options)).decode()


def ask(client: FlaskClient, picture: str, prompt: str = "What is it?", **options: Any) -> TestResponse:
    return client.post(URL, json={"image": picture, "prompt": prompt, **options})


def assert_problem(response: TestResponse, status: int, word: str = "") -> None:
    """The response is a refusal in the promised shape, names `word`, and tells nothing of our insides."""
    assert response.status_code == status, response.text
    body = response.get_json()
    assert set(body) == {"error", "success", "request_id"}
    assert body["success"] is False
    assert word in body["error"]
    for inside in ("0x", "Traceback", "/work", "/tmp", "/etc", ".py", "pydantic", "PIL", "zlib", "jiter"):
        assert inside not in body["error"]
