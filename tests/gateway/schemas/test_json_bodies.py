"""JSON that would weigh far more as objects than it does as text: refused before there is any object."""

from __future__ import annotations

import json
from binascii import hexlify
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cpu_time import takes_less_than
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from peak_memory import growth_bytes
from samples import OPENAI_URL, URL, assert_problem

from gateway.app import create_app
from gateway.schemas.common import read_json
from gateway.schemas.json_reader import MAX_JSON_VALUES, parse_json
from gateway.settings import GatewaySettings
from glmserve.errors import InvalidInput

MIB = 1 << 20
LARGEST = GatewaySettings.model_fields["max_json_bytes"].default - 100
MOST_CPU_S = 0.5


def numbered(count: int, between: bytes) -> bytes:
    """000000, 000001 and so on as hexadecimal."""
    numbers = np.arange(count, dtype=">u4").view(np.uint8).reshape(-1, 4)[:, 1:]
    return hexlify(numbers.tobytes(), b",", 3).replace(b",", between)


MANY: dict[str, Callable[[int], bytes]] = {
    "objects": lambda n: b'{"a":[' + b"{}," * (n // 3) + b"{}]}",
    "lists": lambda n: b'{"a":[' + b"[]," * (n // 3) + b"[]]}",
    "pairs of lists": lambda n: b"[[]," + b"[[],[]]," * (n // 8) + b"[]]",
    "numbers": lambda n: b'{"a":[' + b"1," * (n // 2) + b"1]}",
    "floats": lambda n: b'{"a":[' + b"1.5," * (n // 4) + b"1]}",
    "empty strings": lambda n: b'{"a":[' + b'"",' * (n // 3) + b'""]}',
    "strings": lambda n: b'["' + numbered(n // 9, b'","') + b'"]',
    "strings of quotes": lambda n: b'{"a":[' + b'"\\"",' * (n // 5) + b'""]}',
    "names": lambda n: b'{"' + numbered(n // 11, b'":1,"') + b'":1}',
    "lists within lists": lambda n: b"[" * n,
    "objects within objects": lambda n: b'{"a":' * (n // 5),
}


@pytest.mark.slow
@pytest.mark.parametrize("size", [1_500_000, 4 * MIB, LARGEST])
@pytest.mark.parametrize("kind", MANY)
def test_too_many_values_are_refused_at_once(kind: str, size: int) -> None:
    body = MANY[kind](size)

    def is_refused() -> None:
        with pytest.raises(InvalidInput, match=r"holds more than 120,000 values; at most|not valid JSON"):
            read_json(body, "image and prompt")

    assert takes_less_than(MOST_CPU_S, is_refused)


@pytest.mark.parametrize("kind", ["objects", "lists", "names", "lists within lists"])
def test_a_refused_body_weighs_no_more_than_it_did(kind: str, tmp_path: Path) -> None:
    size = 8 * MIB
    (tmp_path / "body").write_bytes(MANY[kind](size))
    grown = growth_bytes(
        "import sys, pathlib\nfrom gateway.schemas.common import read_json",
        "try:\n    read_json(pathlib.Path(sys.argv[1]).read_bytes(), '')\nexcept Exception as error:\n    print(error)",
        str(tmp_path / "body"),
    )
    assert grown < 1.5 * size


@pytest.mark.parametrize("letter", ["a", "ä", "中", "\U0001f600"])
def test_an_accepted_body_weighs_at_most_five_times_as_much(letter: str, tmp_path: Path) -> None:
    body = json.dumps({"image": "A" * 8 * MIB, "prompt": letter + "a" * MIB}, ensure_ascii=False).encode()
    (tmp_path / "body").write_bytes(body)
    grown = growth_bytes(
        "import sys, pathlib\nfrom gateway.schemas.vision import parse_vision",
        "parse_vision(pathlib.Path(sys.argv[1]).read_bytes())",
        str(tmp_path / "body"),
    )
    assert grown < 5 * len(body)


def test_marks_within_strings_are_not_counted() -> None:
    table = '1,2,[3],{4}\\"' * 130_000
    assert parse_json(json.dumps({"prompt": table})) == {"prompt": table}
    assert parse_json(json.dumps(table)) == table


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_as_many_values_as_are_accepted_are_read(extra: int) -> None:
    count = MAX_JSON_VALUES - 1 + extra  # commas, and the list itself
    body = b"[" + b"1," * count + b"1]"
    if extra > 0:
        with pytest.raises(InvalidInput, match="120,000 values"):
            parse_json(body)
    else:
        assert parse_json(body) == [1] * (count + 1)


@pytest.mark.parametrize("url", [URL, OPENAI_URL, "/v1/tokenize"])
def test_every_route_refuses_them(client: FlaskClient, url: str) -> None:
    response = client.post(url, data=MANY["lists"](MIB), content_type="application/json")
    assert_problem(response, 400, "120,000 values")


def test_a_field_of_a_form_is_counted_too(client: FlaskClient, image: str) -> None:
    form = {"image": image, "prompt": "Hi", "stop": MANY["pairs of lists"](350_000).decode()}
    assert_problem(client.post(URL, data=form, content_type="multipart/form-data"), 400, "120,000 values")


def test_the_arguments_of_a_tool_call_are_counted_too(client: FlaskClient) -> None:
    call = {"function": {"name": "f", "arguments": MANY["objects"](MIB).decode()}}
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    response = client.post(OPENAI_URL, json={"messages": [*messages, {"role": "user", "content": "Hi"}]})
    assert_problem(response, 400, "120,000 values")


@pytest.mark.process
def test_a_form_may_be_larger_than_json(build: Path, backend: FakeBackend, image: str) -> None:
    settings = GatewaySettings(build=build, max_body_bytes=20_000, max_json_bytes=10_000)
    client = create_app(settings, backend).test_client()
    fields = {"image": image, "prompt": "Hi", "user": "x" * 12_000}
    assert client.post(URL, data=fields, content_type="multipart/form-data").status_code == 200
    assert_problem(client.post(URL, json=fields), 413, "at most 10000 bytes are accepted, and 20000 of a form")
