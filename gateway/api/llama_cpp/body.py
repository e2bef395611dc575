"""What a client may send to /completion: the fields of /v1/completions, some by llama.cpp's names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from gateway.api.completions.body import TextBody, conversation_of_text
from gateway.schemas.common import FLAG, with_parameters
from gateway.schemas.conversation import Conversation
from gateway.schemas.unknown_fields import read_knowing
from glmserve.limits import MAX_LOGPROBS, MAX_NEW_TOKENS
from glmserve.sampling_parameters import BY_NAME

_MOST_FIELDS = 64


@with_parameters({"repeat_penalty": BY_NAME["repetition_penalty"]})
class LlamaBody(TextBody):
    """The JSON body of a request to /completion."""

    n_predict: Annotated[int, Field(ge=-1)] | None = Field(
        default=None, description="a whole number of at least 1, or -1 or 0 for as many tokens as there is room for"
    )
    n_probs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = Field(
        default=None, description=f"a whole number from 0 to {MAX_LOGPROBS}"
    )
    return_tokens: bool | None = Field(default=None, description=FLAG)
    response_fields: list[str] | None = Field(
        default=None,
        max_length=_MOST_FIELDS,
        fail_fast=True,
        description=f"a list of at most {_MOST_FIELDS} names of fields",
    )
    echo: Literal[False] | None = Field(default=None, description="false: the answer has a field prompt")
    best_of: Literal[1] | None = Field(default=None, description="1: use n for several answers")
    return_token_ids: Literal[False] | None = Field(default=None, description="false: use return_tokens")
    return_tokens_as_token_ids: Literal[False] | None = Field(
        default=None, description="false: log-probabilities have the ids here"
    )

    def as_text(self) -> TextBody:
        """The same request in the fields of /v1/completions, whose own names count more."""
        most = MAX_NEW_TOKENS if self.n_predict in (-1, 0) else self.n_predict
        theirs = {
            "max_tokens": most,
            "logprobs": self.n_probs or None,
            "repetition_penalty": getattr(self, "repeat_penalty", None),
        }
        given = {name: value for name, value in theirs.items() if value is not None and getattr(self, name) is None}
        return self.model_copy(update=given)


@dataclass(frozen=True)
class Asked:
    """A request to /completion: what is continued, and what is told of it."""

    model: str | None
    conversations: tuple[Conversation, ...]
    is_stream: bool
    shows_tokens: bool
    shows_timings: bool
    fields: tuple[str, ...]


def parse_completion_of_llama(body: bytes) -> Asked:
    """The request in a body; raises InvalidInput with a sentence that names the field at fault."""
    read, unknown = read_knowing(LlamaBody, body, "prompt")
    text = read.as_text()
    conversations = tuple(conversation_of_text(text, prompt, unknown) for prompt in text.prompts())
    return Asked(
        read.model,
        conversations,
        bool(read.stream),
        bool(read.return_tokens),
        bool(read.timings_per_token),
        tuple(read.response_fields or ()),
    )
