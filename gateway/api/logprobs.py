"""Log-probabilities in OpenAI's form: each token with its text and its bytes."""

from __future__ import annotations

from typing import Any

from gateway.triton.backend import Ranked
from glmserve.model.tokenizer import Tokenizer


def as_openai(tokens: tuple[Ranked, ...], tokenizer: Tokenizer, as_ids: bool = False) -> dict[str, Any]:
    """The `logprobs` object of a choice; `as_ids` as in `spelled`."""

    def entry(token_id: int, logprob: float) -> dict[str, Any]:
        told = list(tokenizer.token_bytes(token_id))
        return {"token": spelled(token_id, tokenizer, as_ids), "logprob": logprob, "bytes": told}

    return {
        "content": [{**entry(*ranked[0]), "top_logprobs": [entry(*other) for other in ranked[1:]]} for ranked in tokens]
    }


def spelled(token_id: int, tokenizer: Tokenizer, as_id: bool) -> str:
    """A token's text, or with `as_id` its id as vLLM writes it."""
    return f"token_id:{token_id}" if as_id else tokenizer.token_bytes(token_id).decode("utf-8", "replace")
