"""Places that an answer names come in pixels of the sender's own images, on every chat route, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from PIL import Image
from samples import URL, base64_of

from gateway.chat.boxes import PlacedBox, placed
from glmserve.model.boxes import Box

CHAT = "/v1/chat/completions"
SAID = "The circle <|begin_of_box|>[[250,500,500,1000]]<|end_of_box|>"
BOXES = [{"image": 0, "box": [160, 240, 320, 480], "label": "The circle"}]


@pytest.fixture
def photo() -> str:
    return base64_of(Image.new("RGB", (640, 480), "white"))


@pytest.fixture(autouse=True)
def script(backend: FakeBackend, says: Callable[..., Any]) -> None:
    backend.chunks = says(SAID)


def messages(*photos: str) -> list[dict[str, Any]]:
    parts = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{photo}"}} for photo in photos]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "Where?"}]}]


def events(body: bytes) -> list[dict[str, Any]]:
    lines = [line[6:] for line in body.decode().splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


def test_the_vision_route_tells_them_beside_the_result(client: FlaskClient, photo: str) -> None:
    answer = client.post(URL, json={"image": photo, "prompt": "Where?"}).get_json()
    assert answer["result"] == "The circle [[250,500,500,1000]]" and answer["boxes"] == BOXES


def test_a_stream_tells_them_when_whole_and_again_at_its_end(client: FlaskClient, photo: str) -> None:
    told = events(client.post(URL, json={"image": photo, "prompt": "Where?", "stream": True}).data)
    assert [event["boxes"] for event in told if "boxes" in event] == [BOXES, BOXES]
    assert told[-1]["success"] is True


def test_openai_clients_find_them_in_the_message_and_in_a_delta(client: FlaskClient, photo: str) -> None:
    answer = client.post(CHAT, json={"messages": messages(photo)}).get_json()
    assert answer["choices"][0]["message"]["boxes"] == BOXES
    told = events(client.post(CHAT, json={"messages": messages(photo), "stream": True}).data)
    assert [
        choice["delta"]["boxes"] for event in told for choice in event["choices"] if "boxes" in choice["delta"]
    ] == [BOXES]


def test_logprobs_lose_no_box(client: FlaskClient, photo: str) -> None:
    body = {"image": photo, "prompt": "Where?", "logprobs": True, "stream": True}
    assert events(client.post(URL, json=body).data)[-1]["boxes"] == BOXES


def test_an_answer_without_places_says_nothing_of_them(
    client: FlaskClient, backend: FakeBackend, says: Callable[..., Any], photo: str
) -> None:
    backend.chunks = says("There are <|begin_of_box|>4<|end_of_box|>")
    assert "boxes" not in client.post(URL, json={"image": photo, "prompt": "How many?"}).get_json()


def test_without_an_image_there_is_no_place(client: FlaskClient) -> None:
    body = {"messages": [{"role": "user", "content": "Where?"}]}
    assert "boxes" not in client.post(CHAT, json=body).get_json()["choices"][0]["message"]


def test_of_several_images_the_named_one_else_the_last() -> None:
    sizes = ((100, 100), (1000, 500))
    found = placed(
        [Box((0, 0, 500, 500), "a", image=1), Box((0, 0, 500, 500), "b"), Box((0, 0, 500, 500), "c", image=9)], sizes
    )
    assert found == (
        PlacedBox(0, (0, 0, 50, 50), "a"),
        PlacedBox(1, (0, 0, 500, 250), "b"),
        PlacedBox(1, (0, 0, 500, 250), "c"),
    )
