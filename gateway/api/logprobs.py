"""Log-probabilities in OpenAI's form: each token with its text and its bytes."""

from __future__ import annotations

from typing import Any

from gateway.triton.backend import Ranked
from glmserve.model.tokenizer import Tokenizer


def as_openai(tokens: tuple[Ranked, ...], tokenizer: Tokenizer) -> dict[str, Any]:
    """The `logprobs` object of a choice."""
    return {
        "content": [
            _entry(*ranked[0], tokenizer) | {"top_logprobs": [_entry(*other, tokenizer) for other in ranked[1:]]}
            for ranked in tokens
        ]
    }


def _entry(token_id: int, logprob: float, tokenizer: Tokenizer) -> dict[str, Any]:
    spelled = tokenizer.token_bytes(token_id)
    return {"token": spelled.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(spelled)}
