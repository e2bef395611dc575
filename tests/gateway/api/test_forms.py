"""Forms as browsers, curl and other languages' libraries send them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from urllib.parse import quote, urlencode

import numpy as np
import pytest
from cpu_time import takes_less_than
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from PIL import Image
from samples import URL, assert_problem, base64_of, file_of
from werkzeug.test import TestResponse

from glmserve.model.tokenizer import Tokenizer

PNG = file_of(Image.new("RGB", (120, 90), "blue"))
FORM, URLENCODED = "multipart/form-data", "application/x-www-form-urlencoded"
Part = tuple[str, bytes]
Send = Callable[..., TestResponse]


@pytest.fixture
def send(client: FlaskClient) -> Send:
    """Posts parts that a test writes by itself, each a head (what follows `name=`) and its bytes, after a picture."""

    def post(*parts: Part, image: bytes | None = PNG) -> TestResponse:
        picture = [('"image"; filename="a.png"', image)] if image is not None else []
        body = b"".join(
            b"--x\r\nContent-Disposition: form-data; name=" + head.encode() + b"\r\n\r\n" + data + b"\r\n"
            for head, data in (*picture, *parts)
        )
        return client.post(URL, data=body + b"--x--\r\n", content_type=f"{FORM}; boundary=x")

    return post


def prompt_of(backend: FakeBackend, tokenizer: Tokenizer) -> str:
    return tokenizer.decode(backend.requests[-1].input_ids.tolist())


CHINESE, JAPANESE = "描述这张图片。", "この写真は何ですか"


@pytest.mark.parametrize(
    ("text", "charset"),
    [
        (CHINESE, "gbk"),
        (CHINESE, "GB2312"),
        (CHINESE, "gb18030"),
        (CHINESE + "𠀀", "gb18030"),
        (CHINESE, "utf-8"),
        (CHINESE, "utf-16"),
        ("描述圖片", "big5"),
        (JAPANESE, "shift_jis"),
        (JAPANESE, "euc-jp"),
        ("사진", "euc-kr"),
        ("Qué", "iso-8859-1"),
        ("«Что»", "windows-1251"),
    ],
)
def test_text_in_an_encoding_that_is_named_is_read_in_it(
    send: Send, backend: FakeBackend, tokenizer: Tokenizer, text: str, charset: str
) -> None:
    data = text.encode(charset)
    for parts in (
        [(f'"prompt"\r\nContent-Type: text/plain; charset={charset}', data)],
        [('"_charset_"', charset.encode()), ('"prompt"', data)],
        [('"prompt"', data), ('"_charset_"', charset.encode())],
        [(f'"prompt"; filename="a.txt"\r\nContent-Type: text/plain; charset="{charset}"', data)],
    ):
        assert send(*parts).status_code == 200
        assert text in prompt_of(backend, tokenizer)


@pytest.mark.parametrize("data", [CHINESE.encode("gbk"), JAPANESE.encode("shift_jis"), "Qué".encode("latin-1")])
def test_text_in_an_encoding_that_nobody_names_is_refused_and_never_altered(send: Send, data: bytes) -> None:
    response = send(('"prompt"', data))
    assert_problem(response, 400, "prompt")
    assert "UTF-8" in response.text and "charset=gbk" in response.text


@pytest.mark.parametrize(
    "charset", ["utf-8", "utf-16", "shift_jis", "x-user-defined", "rot13", "idna", "zip", "ü" * 99]
)
def test_text_that_is_none_in_the_encoding_it_names_is_refused(send: Send, charset: str) -> None:
    response = send((f'"prompt"\r\nContent-Type: text/plain; charset="{charset}"', b"\x81" + b"\xff" * 8))
    assert_problem(response, 400, "prompt")


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""])
def test_a_field_of_text_may_be_a_file(send: Send, backend: FakeBackend, tokenizer: Tokenizer, mark: bytes) -> None:
    assert send(('"prompt"; filename="question.txt"', mark + b"Which colour?\n")).status_code == 200
    assert "\nWhich colour?" in prompt_of(backend, tokenizer) or ">Which colour?" in prompt_of(backend, tokenizer)
    schema = b'{"type": "json_object"}'
    assert send(('"prompt"', b"Hi"), ('"response_format"; filename="a.json"', schema)).status_code == 200
    assert backend.requests[-1].grammar


def test_a_utf16_file_is_read_by_its_byte_order_mark(send: Send, backend: FakeBackend, tokenizer: Tokenizer) -> None:
    assert send(('"prompt"; filename="question.txt"', CHINESE.encode("utf-16"))).status_code == 200
    assert CHINESE in prompt_of(backend, tokenizer)


@pytest.mark.parametrize("value", ["true", "True", "TRUE", "1", "on", "yes", " true "])
def test_a_switch_is_on_in_every_way_that_languages_write_it(send: Send, value: str) -> None:
    response = send(('"prompt"', b"Hi"), ('"stream"', value.encode()))
    assert response.status_code == 200 and response.mimetype == "text/event-stream"


@pytest.mark.parametrize("value", ["false", "False", "0", "off", "no", "", " ", "null"])
def test_a_switch_is_off_in_every_way_that_languages_write_it(send: Send, value: str) -> None:
    response = send(('"prompt"', b"Hi"), ('"stream"', value.encode()), ('"thinking"', value.encode()))
    assert response.status_code == 200 and response.mimetype == "application/json"


@pytest.mark.parametrize("value", ["maybe", "2", "[]", "tru"])
def test_a_switch_that_is_neither_is_named(send: Send, value: str) -> None:
    assert_problem(send(('"prompt"', b"Hi"), ('"stream"', value.encode())), 400, "stream")


@pytest.mark.parametrize("blank", [b"", b" ", b"\r\n", "\u3000".encode()])
def test_blank_fields_of_a_form_are_absent(send: Send, backend: FakeBackend, blank: bytes) -> None:
    names = ("max_tokens", "temperature", "top_p", "seed", "stop", "stop_token_ids", "system", "images", "question")
    fields = [(f'"{name}"', blank) for name in (*names, "response_format", "thinking")]
    assert send(('"prompt"', b"Hi")).status_code == 200
    assert send(('"prompt"', b"Hi"), *fields).status_code == 200
    first, second = backend.requests
    assert np.array_equal(first.input_ids, second.input_ids)
    assert first.sampling.max_tokens == second.sampling.max_tokens


@pytest.mark.parametrize(("sent", "value"), [(" 7 ", 7), ("7\r\n", 7), ("\u30007", 7), ("07", 400), ("many", 400)])
def test_numbers_may_stand_between_blanks(send: Send, backend: FakeBackend, sent: str, value: int) -> None:
    response = send(('"prompt"', b"Hi"), ('"max_tokens"', sent.encode()))
    if value == 400:
        assert_problem(response, 400, "max_tokens")
    else:
        assert response.status_code == 200 and backend.requests[0].sampling.max_tokens == value


@pytest.mark.parametrize(("sent", "value"), [(".5", 0.5), ("1.", 1.0), ("+0.5", 0.5), ("1e-1", 0.1)])
def test_numbers_are_read_as_people_write_them(send: Send, backend: FakeBackend, sent: str, value: float) -> None:
    assert send(('"prompt"', b"Hi"), ('"temperature"', sent.encode())).status_code == 200
    assert backend.requests[0].sampling.temperature == value


@pytest.mark.parametrize("name", ["image[]", "images[]", "images[0]", "image[1]", "images"])
def test_lists_may_have_brackets(send: Send, backend: FakeBackend, image: str, name: str) -> None:
    prompt = ('"prompt"', b"Hi")
    files = [(f'"{name}"; filename="a.png"', PNG)] * 2
    assert send(prompt, *files, image=None).status_code == 200
    assert len(backend.requests[-1].grids) == 2
    assert send(prompt, *[(f'"{name}"', image.encode())] * 2, image=None).status_code == 200
    assert len(backend.requests[-1].grids) == 2
    assert send(prompt, ('"stop[]"', b"red"), ('"stop[]"', b"x")).get_json()["result"] == "A"


def test_an_empty_file_beside_a_picture_is_absent(send: Send, backend: FakeBackend) -> None:
    empty = ('"images"; filename=""', b"")
    assert send(empty, empty, ('"image"; filename=""', b""), ('"prompt"', b"Hi")).status_code == 200
    assert len(backend.requests[0].grids) == 1


def test_an_empty_file_alone_is_told(send: Send) -> None:
    assert_problem(send(('"prompt"', b"Hi"), image=b""), 400, "The file image is empty")


def test_a_picture_under_another_name_is_told_the_right_one(send: Send) -> None:
    other = ('"photo"; filename="a.png"', PNG)
    assert_problem(
        send(('"prompt"', b"Hi"), other, image=None), 400, "came as photo. Images are sent as image or images"
    )


def test_a_plain_form_holds_base64(client: FlaskClient, backend: FakeBackend) -> None:
    image = base64_of(Image.effect_noise((120, 90), 99))

    def post(body: str | bytes, kind: str = URLENCODED) -> int:
        return client.post(URL, data=body, content_type=kind).status_code

    url = "data:image/png;base64," + image
    assert "+" in image
    for value in (quote(image, safe=""), image, quote(url, safe=""), url):
        assert post(f"image={value}&prompt=Which+colour%3F&max_tokens=7") == 200
        assert backend.requests[-1].sampling.max_tokens == 7
    assert post(urlencode({"images[]": [image, image], "prompt": CHINESE, "stream": ""}, doseq=True)) == 200
    assert len(backend.requests[-1].grids) == 2
    assert post(b"image=" + quote(image).encode() + b"&prompt=" + CHINESE.encode()) == 200
    gbk = quote(CHINESE.encode("gbk"))
    assert post(f"image={quote(image)}&prompt={gbk}") == 400
    assert post(f"image={quote(image)}&prompt={gbk}", f"{URLENCODED}; charset=gbk") == 200
    assert post(f"_charset_=gbk&image={quote(image)}&prompt={gbk}") == 200
    assert post("&" * 1000) == 400


def test_json_that_says_it_is_a_form_is_told(client: FlaskClient, image: str) -> None:
    response = client.post(URL, data=f'{{"image": "{image}", "prompt": "Hi"}}', content_type=URLENCODED)
    assert_problem(response, 415, "say application/json")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [FORM + "; boundary=x", URLENCODED])
@pytest.mark.parametrize("piece", [b"a", b"\r", b"\r\n--", b"%", b"%41", b"&", b"=", b"\n", b"--x\r\n"])
def test_megabytes_of_anything_are_read_in_a_moment(client: FlaskClient, kind: str, piece: bytes) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="system"\r\n\r\n' + piece * (18_000_000 // len(piece))

    def is_refused() -> None:
        response = client.post(
            URL, input_stream=io.BytesIO(body), content_type=kind, headers={"Content-Length": len(body)}
        )
        assert response.status_code in (400, 413)

    assert takes_less_than(1.5, is_refused)


_NAMED = b'--x\r\nContent-Disposition: form-data; name="system"'


@pytest.mark.parametrize(
    ("before", "piece", "after"),
    [
        (b"--x\r\n", b"X: y\r\n", b""),
        (b"--x\r\n", b"X\r\n", b""),
        (_NAMED + b"\r\n", b" x\r\n", b""),
        (_NAMED, b"; a=b", b"\r\n"),
        (_NAMED, b"; a*0=b", b"\r\n"),
        (_NAMED + b'; filename="', b'\\"', b'"\r\n'),
        (_NAMED + b"; filename*=utf-8''", b"%41", b"\r\n"),
        (_NAMED + b"\r\nContent-Type: text/plain", b"; charset=x", b"\r\n"),
        (b"", b"\r", b""),
        (b"", b"\r\n--", b""),
        (b"", b"\r\n--x \t", b""),
        (b"--x", b" ", b"\r\n"),
        (_NAMED + b"\r\n\r\n", b"\r\n--x \t", b""),
    ],
)
def test_megabytes_around_the_parts_are_refused_in_a_moment(
    client: FlaskClient, before: bytes, piece: bytes, after: bytes
) -> None:
    body = before + piece * (18_000_000 // len(piece)) + after + b"\r\n\r\nHi\r\n--x--\r\n"

    def is_refused() -> None:
        headers = {"Content-Length": len(body)}
        response = client.post(URL, input_stream=io.BytesIO(body), content_type=FORM + "; boundary=x", headers=headers)
        assert response.status_code == 400

    assert takes_less_than(1.5, is_refused)


@pytest.mark.parametrize("preamble", [b"", b"\r\n", b"A form.\r\n"])
def test_a_long_file_name_and_a_few_words_before_the_form_are_fine(
    client: FlaskClient, image: str, preamble: bytes
) -> None:
    body = preamble + (
        b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nHi\r\n--x\r\nContent-Disposition: form-data; '
        b'name="image"; filename="%s"\r\nContent-Type: image/png\r\n\r\n%s\r\n--x--\r\n'
    ) % (b"a" * 4000, base64.b64decode(image))
    assert client.post(URL, data=body, content_type=FORM + "; boundary=x").status_code == 200
