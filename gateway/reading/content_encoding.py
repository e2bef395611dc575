"""A compressed body becomes the body itself, within bounds of size and processor time."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from typing import Any

import brotli

from gateway.errors import NotJson
from glmserve.errors import InvalidInput, TooLarge

UNPACK_CPU_S = 0.05
"""Processor time that unpacking may take before anything comes of it: blocks and members may hold nothing."""
UNPACK_BYTE_NS = 20
"""Processor time for each byte that came of it; honest text takes 5 to 8 ns."""
_PIECE_BYTES = 1 << 16
_GZIP, _ZLIB, _RAW = 31, 15, -15  # as zlib's window bits tell them apart
_GZIPS = ("gzip", "x-gzip")
_DEFLATE_METHOD = 8
_HEADER = "Content-Encoding"


def unpacked(body: bytes, encoding: str, most_bytes: int) -> bytes:
    """The body that the header Content-Encoding, `encoding`, speaks of.

    Raises NotJson for one that is not read here, TooLarge, and InvalidInput for what is broken or takes too long.
    """
    names = [name for name in (part.strip().lower() for part in encoding.split(",")) if name not in ("", "identity")]
    if not names or not body:
        return body
    if len(names) > 1 or names[0] not in (*_GZIPS, "deflate", "br"):
        shown = ", ".join(names)[:64]
        raise NotJson(f"The {_HEADER} of this request is {shown}; gzip, deflate, br or none is accepted.", _HEADER)
    started_s, pieces, count = time.thread_time(), list[bytes](), 0
    try:
        for piece in _pieces(body, names[0]):
            count += len(piece)
            pieces.append(piece)
            if count > most_bytes:
                raise TooLarge(f"The request body is too large: unpacked, at most {most_bytes} bytes are accepted.")
            if time.thread_time() - started_s > UNPACK_CPU_S + count * UNPACK_BYTE_NS / 1e9:
                raise InvalidInput(
                    f"Unpacking the request body takes far more time than its {count} bytes so far need: send it "
                    f"packed as one stream, or as it is.",
                    _HEADER,
                )
    except (zlib.error, brotli.error, EOFError):
        raise InvalidInput(f"The request body is not whole {names[0]}, as its {_HEADER} says.", _HEADER) from None
    return b"".join(pieces)


def _pieces(body: bytes, name: str) -> Iterator[bytes]:
    if name == "br":
        return _of_brotli(body)
    if name in _GZIPS:
        return _of_zlib(body, _GZIP)
    is_zlib = body[0] & 15 == _DEFLATE_METHOD and int.from_bytes(body[:2], "big") % 31 == 0
    return _of_zlib(body, _ZLIB if is_zlib else _RAW)


def _of_zlib(body: bytes, window_bits: int) -> Iterator[bytes]:
    """Pieces of bounded size, some of them empty; raises EOFError where the data breaks off."""
    inflate = zlib.decompressobj(window_bits)
    for at in range(0, len(body), _PIECE_BYTES):
        packed = body[at : at + _PIECE_BYTES]
        while packed:
            yield inflate.decompress(packed, _PIECE_BYTES)
            packed = inflate.unconsumed_tail
            if inflate.eof:
                packed = inflate.unused_data
                if window_bits == _GZIP:  # one file may follow another, and zeros fill the rest
                    packed = packed.lstrip(b"\0")
                    inflate = zlib.decompressobj(window_bits) if packed else inflate
                else:
                    packed = b""
    while not inflate.eof:
        rest = inflate.decompress(inflate.unconsumed_tail, _PIECE_BYTES)
        if not rest:
            raise EOFError
        yield rest


def _of_brotli(body: bytes) -> Iterator[bytes]:
    unpack: Any = brotli.Decompressor()
    for at in range(0, len(body), _PIECE_BYTES):
        yield unpack.process(body[at : at + _PIECE_BYTES], output_buffer_limit=_PIECE_BYTES)
        while not unpack.can_accept_more_data():
            yield unpack.process(b"", output_buffer_limit=_PIECE_BYTES)
    while not unpack.is_finished():
        rest = unpack.process(b"", output_buffer_limit=_PIECE_BYTES)
        if not rest:
            raise EOFError
        yield rest
