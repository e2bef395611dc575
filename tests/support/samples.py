"""Images as files, and what every test of a chat route does: ask, and look at a refusal."""

from __future__ import annotations

import base64
import io
from typing import Any

from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

URL = "/v1/chat/vision"
OPENAI_URL = "/v1/chat/completions"


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def base64_of(image: Image.Image, kind: str = "PNG", **options: Any) -> str:
    return base64.b64encode(file_of(image, kind, **options)).decode()


def ask(client: FlaskClient, image: str, prompt: str = "What is it?", **options: Any) -> TestResponse:
    return client.post(URL, json={"image": image, "prompt": prompt, **options})


def ask_openai(client: FlaskClient, image: str, prompt: str = "What is it?", **options: Any) -> TestResponse:
    """The same question to the other route; base64 becomes the data URL that it takes."""
    url = image if ":" in image else f"data:image/png;base64,{image}"
    parts = [{"type": "image_url", "image_url": url}, {"type": "text", "text": prompt}]
    return client.post(OPENAI_URL, json={"messages": [{"role": "user", "content": parts}], **options})


def assert_problem(response: TestResponse, status: int, word: str = "") -> None:
    """The response is a refusal in its route's shape, names `word`, and tells nothing of our insides."""
    assert response.status_code == status, response.text
    body = response.get_json()
    if isinstance(body["error"], dict):
        assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
        sentence = body["error"]["message"]
    else:
        assert set(body) == {"error", "success", "request_id"} and body["success"] is False
        sentence = body["error"]
    assert word in sentence
    for inside in ("0x", "Traceback", "/work", "/tmp", "/etc", ".py", "pydantic", "PIL", "zlib", "jiter"):
        assert inside not in sentence
