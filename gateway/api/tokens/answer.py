"""The answer of /v1/tokenize, written a few ids at a time: hundreds of thousands at once would hold everybody up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glmserve.model.tokenizer import Tokenizer

_IDS_AT_A_TIME = 2048


def document(
    facts: dict[str, int], input_ids: NDArray[np.int64], tokenizer: Tokenizer, has_pieces: bool, has_texts: bool
) -> bytes:
    """The JSON object of these facts, the tokens, and the text of each where it is wanted."""
    written = [json.dumps(facts)[:-1].encode()]
    written += [b', "tokens": ', *_list(input_ids, lambda token: _piece(token, tokenizer) if has_pieces else token)]
    texts = _list(input_ids, lambda token: tokenizer.token_bytes(token).decode("utf-8", "replace"))
    written += [b', "token_strs": ', *(texts if has_texts else (b"null",)), b"}\n"]
    return b"".join(written)


def _piece(token: int, tokenizer: Tokenizer) -> dict[str, Any]:
    """A token as llama.cpp's clients read it; a piece that is no text alone is its bytes."""
    spelled = tokenizer.token_bytes(token)
    try:
        return {"id": token, "piece": spelled.decode()}
    except UnicodeDecodeError:
        return {"id": token, "piece": list(spelled)}


def _list(input_ids: NDArray[np.int64], item: Callable[[int], Any]) -> Iterator[bytes]:
    yield b"["
    for at in range(0, len(input_ids), _IDS_AT_A_TIME):
        items = [item(token) for token in input_ids[at : at + _IDS_AT_A_TIME].tolist()]
        yield (b", " if at else b"") + json.dumps(items, ensure_ascii=False)[1:-1].encode()
    yield b"]"
