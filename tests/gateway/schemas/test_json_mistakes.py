"""A body that is no JSON is told what is wrong with it, and where."""

from __future__ import annotations

import pytest
from cpu_time import takes_less_than
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from samples import OPENAI_URL, URL, assert_problem

from gateway.schemas.common import read_json
from glmserve.errors import InvalidInput

MISTAKES: list[tuple[bytes, str]] = [
    (b"", "is empty; it must be a JSON object with the fields image and prompt"),
    (b" \r\n", "is empty"),
    (b"\xef\xbb\xbf{}", "begins with a byte order mark (BOM); send plain JSON as UTF-8"),
    ("{}".encode("utf-16"), "is UTF-16; send plain JSON as UTF-8"),
    ("{}".encode("utf-16-le"), "is UTF-16"),
    ("{}".encode("utf-16-be"), "is UTF-16"),
    ("{}".encode("utf-32"), "is UTF-32"),
    ("{}".encode("utf-32-be"), "is UTF-32"),
    (b"\x1f\x8b\x08\0", "is compressed, and no Content-Encoding says so"),
    (b"image=abc&prompt=hi", "at line 1, column 1, a value is expected"),
    (b'{"a": "\\ud800"}', "half of a surrogate pair (\\ud800 to \\udfff) stands alone"),
    (b'{"a": "\\ud83d\\u0041"}', "stands alone"),
    (b'{"a": "\\udc00"}', "stands alone"),
    (b'{"a": "\\u12"}', "no escape of JSON"),
    (b'{\n"a": NaN}', "at line 2, column 6, NaN and Infinity are no numbers of JSON"),
    (b'{"a": -Infinity}', "NaN and Infinity"),
    (b'{"a": Infinity}', "NaN and Infinity"),
    (b'{"a": None}', "JSON has null, true and false"),
    (b'{"a": True}', "JSON has null, true and false"),
    (b'{"a": 1,\n}', "at line 2, column 1, a comma stands before the closing bracket"),
    (b"[1,]", "a comma stands before the closing bracket"),
    (b"{'a': 1}", "at line 1, column 2, a field's name in double quotes is expected"),
    (b'{"a" 1}', "a colon is expected"),
    (b'{"a": 1 "b": 2}', "at line 1, column 9, a comma or } is expected"),
    (b"[1 2]", "a comma or ] is expected"),
    (b'{"a": 1', "at line 1, column 7, it ends too early"),
    (b'{"a": "b\nc"}', "a line break or another control character stands in a text"),
    (b'{"a": "C:\\x"}', "a backslash is written"),
    (b'{"a": 01}', "no number of JSON"),
    (b'{"a": 1} {}', "more follows after the end"),
    (b"[" * 300, "too deep inside one another"),
    ('{"a": "图片", x}'.encode(), "at line 1, column 13, a field's name"),
    ('{"a": "描述"}'.encode("gbk"), "at line 1, column 8, a byte is not UTF-8"),
    (b"[1]", "must be a JSON object with the fields image and prompt and is a list"),
    (b'"x"', 'and is "x"'),
    (b"null", "and is null"),
]


@pytest.mark.parametrize(("body", "words"), MISTAKES)
def test_what_is_wrong_and_where_is_told(client: FlaskClient, body: bytes, words: str) -> None:
    assert_problem(client.post(URL, data=body, content_type="application/json"), 400, words)
    words = words.replace("image and prompt", "model and messages")
    assert_problem(client.post(OPENAI_URL, data=body, content_type="application/json"), 400, words)


@given(st.binary(max_size=60) | st.text('{}[]",:\\u01aeEnltrufs \n', max_size=60).map(str.encode))
def test_any_bytes_are_an_object_or_a_sentence(body: bytes) -> None:
    try:
        read_json(body, "image and prompt")
    except InvalidInput as error:
        assert error.message.startswith("The request body ") and error.message.endswith(".")


@pytest.mark.parametrize("body", [b"\n" * 15_000_000 + b"x", b'{"a": "' + b"x" * 15_000_000, b"\n" * 9999 + b"{'a'}"])
def test_the_place_is_found_in_a_moment(body: bytes) -> None:
    def is_refused() -> None:
        with pytest.raises(InvalidInput, match="at line"):
            read_json(body, "")

    assert takes_less_than(0.5, is_refused)
