"""The answer of /v1/tokenize, written a few ids at a time: hundreds of thousands at once would hold everybody up."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glmserve.model.tokenizer import Tokenizer

_IDS_AT_A_TIME = 2048


def document(
    facts: dict[str, int], input_ids: NDArray[np.int64], tokenizer: Tokenizer, has_pieces: bool, has_texts: bool
) -> bytes:
    """The JSON object of these facts, the tokens, and the text of each where it is wanted."""
    written = [json.dumps(facts)[:-1].encode(), b', "tokens": ']
    written += _list(input_ids, _pieces(input_ids, tokenizer)) if has_pieces else _list(input_ids)
    written.append(b', "token_strs": ')
    written += _list(input_ids, _texts(input_ids, tokenizer)) if has_texts else [b"null"]
    return b"".join((*written, b"}\n"))


def _texts(input_ids: NDArray[np.int64], tokenizer: Tokenizer) -> dict[int, bytes]:
    """Each token's text as JSON."""
    return {token: _json(tokenizer.token_bytes(token).decode("utf-8", "replace")) for token in _distinct(input_ids)}


def _pieces(input_ids: NDArray[np.int64], tokenizer: Tokenizer) -> dict[int, bytes]:
    """Each token as llama.cpp's clients read it; a piece that is no text alone is its bytes."""
    return {token: _json({"id": token, "piece": _piece(token, tokenizer)}) for token in _distinct(input_ids)}


def _piece(token: int, tokenizer: Tokenizer) -> str | list[int]:
    spelled = tokenizer.token_bytes(token)
    try:
        return spelled.decode()
    except UnicodeDecodeError:
        return list(spelled)


def _distinct(input_ids: NDArray[np.int64]) -> list[int]:
    found: list[int] = np.unique(input_ids).tolist()
    return found


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _list(input_ids: NDArray[np.int64], written: Mapping[int, bytes] | None = None) -> Iterator[bytes]:
    yield b"["
    for at in range(0, len(input_ids), _IDS_AT_A_TIME):
        ids = input_ids[at : at + _IDS_AT_A_TIME].tolist()
        items = map(b"%d".__mod__, ids) if written is None else map(written.__getitem__, ids)
        yield (b", " if at else b"") + b", ".join(items)
    yield b"]"
