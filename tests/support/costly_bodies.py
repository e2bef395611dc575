"""Requests that are dear to read and are refused or answered all the same: one maker for each kind of cost.

Each makes a path, headers and a body. None exceeds the service's own limits of bytes and characters.
"""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

_BYTES = 15_000_000
_CHARS = 200_000
_CODE_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1)
CHAT, VISION, TEXT = "/v1/chat/completions", "/v1/chat/vision", "/v1/completions"
_JSON = "application/json"
_BOUNDARY = "bound"
_PIXEL = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
        "0000000c49444154789c63f8cfc000000301010018dd8db00000000049454e44ae426082"
    )
).decode()


@dataclass(frozen=True)
class CostlyBody:
    """One request."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": _JSON})


def _chat(**fields: object) -> CostlyBody:
    asked = {"messages": [{"role": "user", "content": "Hi."}], "max_tokens": 1}
    return CostlyBody(CHAT, json.dumps(asked | fields).encode())


def _said(text: str) -> CostlyBody:
    return _chat(messages=[{"role": "user", "content": text}])


def _raw(path: str, body: bytes) -> CostlyBody:
    return CostlyBody(path, body)


def _picture(text: str) -> CostlyBody:
    return CostlyBody(VISION, json.dumps({"image": text, "prompt": "?", "max_tokens": 1}).encode())


def _form(name: str, data: bytes, is_file: bool = True) -> CostlyBody:
    file = '; filename="a"' if is_file else ""
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    body = head.encode() + data + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return CostlyBody(VISION, body, {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"})


def _heads() -> CostlyBody:
    """Of fifty parts, each with a head of 7 KB."""
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"'.encode()
    parts = (head + b'; a="\\"\\"\\"\\""' * 500 + b"\r\n\r\n1\r\n") * 50
    return CostlyBody(VISION, parts + f"--{_BOUNDARY}--\r\n".encode(), _form("image", b"").headers)


def _urlencoded(body: bytes) -> CostlyBody:
    return CostlyBody(VISION, body, {"Content-Type": "application/x-www-form-urlencoded"})


def _packed(body: bytes, encoding: str) -> CostlyBody:
    return CostlyBody(CHAT, body, {"Content-Type": _JSON, "Content-Encoding": encoding})


def _stored_blocks(count: int) -> bytes:
    """A zlib stream of stored blocks without content: five bytes each, and nothing comes of them."""
    return (
        b"\x78\x01" + b"\x00\x00\x00\xff\xff" * count + b"\x01\x00\x00\xff\xff" + zlib.adler32(b"").to_bytes(4, "big")
    )


def _bits(text: str) -> bytes:
    """Bits as deflate packs them, the first in the lowest place."""
    return bytes(int(text[at : at + 8][::-1], 2) for at in range(0, len(text), 8))


def fixed_blocks(count: int) -> bytes:
    """Blocks of the fixed code that hold nothing but their end, ten bits each."""
    return b"\x78\x01" + _bits("0100000000" * 4) * (count // 4)


def _dynamic_blocks(count: int) -> bytes:
    """Blocks that bring a code of their own and hold nothing but their end, twelve bytes each."""

    def number(value: int, width: int) -> str:
        return f"{value:0{width}b}"[::-1]

    lengths = "".join(number({18: 1, 0: 2, 1: 2}.get(symbol, 0), 3) for symbol in _CODE_ORDER)
    zeros = "0" + number(138 - 11, 7) + "0" + number(118 - 11, 7)
    block = "0" + number(2, 2) + number(0, 5) + number(0, 5) + number(14, 4) + lengths + zeros + "1111" + "0"
    return b"\x78\x01" + _bits(block * 8) * (count // 8)


def empty_metablocks(count: int) -> bytes:
    """A brotli stream of metablocks without content, a byte each."""
    return b"\x0c" + b"\x06" * count + b"\x03"


KINDS: dict[str, Callable[[], CostlyBody]] = {
    "a prompt many times the context, words": lambda: _said(("The quick brown fox, it's 12345. " * 9_000)[:_CHARS]),
    "a prompt many times the context, rare characters": lambda: _said("龘" * _CHARS),
    "a prompt of one long word": lambda: _said("ab" * (_CHARS // 2)),
    "a prompt of control tokens": lambda: _said("<|user|>" * (_CHARS // 8)),
    "a text to continue": lambda: _raw(TEXT, json.dumps({"prompt": "龘 " * (_CHARS // 2), "max_tokens": 1}).encode()),
    "a text to count": lambda: _raw("/v1/tokenize", json.dumps({"prompt": "龘 " * (_CHARS // 2)}).encode()),
    "ids to make text of": lambda: _raw("/v1/detokenize", json.dumps({"tokens": [300] * 110_000}).encode()),
    "many messages": lambda: _chat(messages=[{"role": "user", "content": "x" * 300}] * 512),
    "many parts": lambda: _chat(
        messages=[{"role": "user", "content": [{"type": "text", "text": "y" * 20}] * 64}] * 100
    ),
    "JSON of many keys": lambda: _chat(**{f"{i:0110d}": 1 for i in range(119_000)}),
    "a name that nobody knows, of megabytes": lambda: _chat(**{"k" * _BYTES: 1}),
    "a name of megabytes with a wrong value": lambda: _raw(
        "/v1/responses", json.dumps({"input": "Hi.", "metadata": {"k" * _BYTES: 1}}).encode()
    ),
    "a word of megabytes that nobody reads": lambda: _chat(user="k" * _BYTES),
    "a word of megabytes that is wrong": lambda: _chat(tool_choice="k" * _BYTES),
    "a prompt of megabytes": lambda: _said("k" * _BYTES),
    "JSON of many lists": lambda: _chat(x=[[]] * 110_000),
    "JSON of escapes": lambda: _raw(CHAT, b'{"messages":"' + b"\\u0041" * (_BYTES // 6) + b'"}'),
    "JSON of commas in a string": lambda: _raw(CHAT, b'{"messages":"' + b"," * _BYTES + b'"}'),
    "JSON of blanks": lambda: _raw(CHAT, b'{"messages":' + b" " * _BYTES + b"1}"),
    "JSON with a long number": lambda: _raw(CHAT, b'{"messages":0.' + b"1" * _BYTES + b"}"),
    "JSON that breaks off": lambda: _raw(CHAT, b'{"messages":[' + b"{}," * 35_000 + b'"' + b"\\n" * (_BYTES // 4)),
    "base64 of blanks": lambda: _picture(" " * _BYTES),
    "base64 with blanks": lambda: _picture("AB \n" * (_BYTES // 5)),
    "base64 of escapes": lambda: _picture("%41" * (_BYTES // 3)),
    "half a megabyte of base64 of no picture": lambda: _picture("A" * 500_000),
    "base64 of no picture": lambda: _picture("A" * _BYTES),
    "base64 of a tiny picture and much else": lambda: _picture(_PIXEL + "=" * _BYTES),
    "a form of dashes": lambda: _form("image", b"-" * _BYTES),
    "a form of almost boundaries": lambda: _form("image", b"\r\n--boun" * (_BYTES // 8)),
    "a form's long text": lambda: _form("image", b"AB \n" * (_BYTES // 4), is_file=False),
    "a form of escapes": lambda: _urlencoded(b"prompt=a&image=" + b"%41" * (_BYTES // 3)),
    "a form's JSON": lambda: _form("stop", b"[" + b'"a",' * 110_000 + b'"a"]', is_file=False),
    "a form's long heads": _heads,
    "a form of blanks": lambda: _urlencoded(b"prompt=a&image=" + b"+" * _BYTES),
    "a small body of calls": lambda: _raw(
        "/v1/responses",
        json.dumps({"input": [{"type": "function_call", "call_id": "a", "name": "a"}] * 1100}).encode(),
    ),
    "a small body of unknown fields": lambda: _chat(**{f"temperatur{i}": 1 for i in range(2900)}),
    "empty gzip members": lambda: _packed(gzip.compress(b"", mtime=0) * 780_000, "gzip"),
    "empty stored blocks": lambda: _packed(_stored_blocks(3_000_000), "deflate"),
    "empty fixed blocks": lambda: _packed(fixed_blocks(12_000_000), "deflate"),
    "empty blocks with codes": lambda: _packed(_dynamic_blocks(1_200_000), "deflate"),
    "empty brotli metablocks": lambda: _packed(empty_metablocks(_BYTES), "br"),
    "a zip bomb of blanks": lambda: _packed(gzip.compress(b" " * 16_000_000), "gzip"),
    "a zip bomb of base64": lambda: _packed(gzip.compress(_picture("A" * _BYTES).body), "gzip"),
}
