"""Counts tokens as OpenAI's clients read them."""

from __future__ import annotations


def token_counts(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """The counts that every `usage` of OpenAI's begins with."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
