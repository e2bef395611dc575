"""What POST /v1/chat/vision takes beside its contract: several pictures, a form, a system text, other names."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from PIL import Image
from samples import URL, assert_problem, base64_of, file_of

from glmserve.model.tokenizer import Tokenizer


def text_of(backend: FakeBackend, tokenizer: Tokenizer) -> str:
    return tokenizer.decode(backend.requests[-1].input_ids.tolist())


def form(**fields: Any) -> dict[str, Any]:
    return {"data": fields, "content_type": "multipart/form-data"}


def a_file(name: str = "cat.png") -> tuple[io.BytesIO, str]:
    return io.BytesIO(file_of(Image.new("RGB", (120, 90), "blue"))), name


@pytest.mark.parametrize("name", ["prompt", "question", "text"])
def test_the_question_has_three_names(
    client: FlaskClient, backend: FakeBackend, tokenizer: Tokenizer, image: str, name: str
) -> None:
    assert client.post(URL, json={"image": image, name: "Which colour?"}).status_code == 200
    assert "Which colour?" in text_of(backend, tokenizer)


def test_several_images_stand_in_order_before_the_text(
    client: FlaskClient, backend: FakeBackend, tokenizer: Tokenizer
) -> None:
    images = [base64_of(Image.new("RGB", size)) for size in ((56, 112), (168, 56), (112, 112))]
    response = client.post(URL, json={"images": images, "prompt": "Compare."})
    assert response.status_code == 200
    request = backend.requests[0]
    assert [(grid.rows, grid.columns) for grid in request.grids] == [(8, 4), (4, 12), (8, 8)]
    assert request.patches is not None and len(request.patches) == sum(grid.patches for grid in request.grids)
    assert response.get_json()["usage"]["image_tokens"] == text_of(backend, tokenizer).count("<|image|>")


def test_image_and_images_add_up(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    assert client.post(URL, json={"image": image, "images": [image], "prompt": "Hi"}).status_code == 200
    assert len(backend.requests[0].grids) == 2


def test_the_wrong_one_of_several_images_is_named(client: FlaskClient, image: str) -> None:
    assert_problem(client.post(URL, json={"images": [image, "%"], "prompt": "Hi"}), 400, "images[1]")
    assert_problem(client.post(URL, json={"images": [image, 5], "prompt": "Hi"}), 400, "images[1]")


@pytest.mark.parametrize("images", [[], "x", ["x"] * 17])
def test_a_wrong_list_of_images_is_named(client: FlaskClient, images: Any) -> None:
    assert_problem(client.post(URL, json={"images": images, "prompt": "Hi"}), 400, "images")


def test_seventeen_images_in_two_fields_are_one_too_many(client: FlaskClient, image: str) -> None:
    assert_problem(client.post(URL, json={"image": image, "images": [image] * 16, "prompt": "Hi"}), 400, "16")


def test_a_system_text_comes_first(client: FlaskClient, backend: FakeBackend, tokenizer: Tokenizer, image: str) -> None:
    client.post(URL, json={"image": image, "prompt": "Hi", "system": "Be brief."})
    assert text_of(backend, tokenizer).startswith("[gMASK]<sop><|system|>\nBe brief.<|user|>")


def test_a_form_is_as_good_as_json(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    client.post(URL, json={"image": image, "prompt": "Hi", "max_tokens": 7, "stop": ["x"]})
    response = client.post(URL, **form(image=a_file(), question="Hi", max_tokens="7", stop='["x"]'))
    assert response.status_code == 200
    first, second = backend.requests
    assert (
        np.array_equal(first.input_ids, second.input_ids)
        and first.sampling.max_tokens == second.sampling.max_tokens == 7
    )
    assert first.patches is not None and np.array_equal(first.patches, second.patches)


def test_a_form_may_hold_several_files_or_base64(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    assert client.post(URL, **form(image=[a_file(), a_file()], prompt="Hi")).status_code == 200
    assert len(backend.requests[0].grids) == 2
    assert client.post(URL, **form(image=image, prompt="5")).status_code == 200


@pytest.mark.parametrize(
    ("sent", "result"),
    [
        (["circle", "red"], "A"),
        (["red", "circle"], "A"),
        ("red", "A"),
        ('["red", "circle"]', "A"),
        ('"red"', "A"),
        ("5", "A red circle."),
        ("true", "A red circle."),
        ("null", "A red circle."),
        ([f"word {i}" for i in range(16)], "A red circle."),
    ],
)
def test_stop_strings_of_a_form_are_all_heeded(client: FlaskClient, sent: Any, result: str) -> None:
    response = client.post(URL, **form(image=a_file(), prompt="Hi", stop=sent))
    assert (response.status_code, response.get_json().get("result")) == (200, result)


def test_other_lists_of_a_form_may_be_repeated_too(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    for ids, wanted in ((["5", "6"], (5, 6)), ("5", (5,)), ("[5, 6]", (5, 6))):
        assert client.post(URL, **form(images=[image] * 2, prompt="Hi", stop_token_ids=ids)).status_code == 200
        assert backend.requests[-1].sampling.stop_token_ids == wanted and len(backend.requests[-1].grids) == 2


@pytest.mark.parametrize("field", ["prompt", "max_tokens"])
def test_a_field_of_a_form_that_can_only_be_one_is_refused_twice(client: FlaskClient, field: str) -> None:
    fields = {"image": a_file(), "prompt": "Hi", field: ["5", "6"]}
    assert_problem(client.post(URL, **form(**fields)), 400, field)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"prompt": "Hi"}, "image"),
        ({"image": (io.BytesIO(b"words"), "a.png"), "prompt": "Hi"}, "image"),
        ({"image": (io.BytesIO(b""), "a.png"), "prompt": "Hi"}, "image"),
        ({"image": "x"}, "prompt"),
        ({"image": "x", "prompt": "Hi", "max_tokens": "many"}, "max_tokens"),
        ({f"f{i}": "x" for i in range(100)}, "parts"),
    ],
)
def test_a_wrong_form_is_told_what_is_wrong(client: FlaskClient, fields: dict[str, Any], word: str) -> None:
    assert_problem(client.post(URL, **form(**fields)), 400, word)


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=zz", "multipart/form-data; boundary="]
)
def test_a_form_that_is_none_is_a_400(client: FlaskClient, kind: str) -> None:
    assert_problem(client.post(URL, data=b"--x\r\nhello", content_type=kind), 400)
