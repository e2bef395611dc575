"""What a client may send to /v1/tokenize and /v1/detokenize."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from gateway.schemas.common import FLAG, MAX_TOKEN_IDS, RequestBody, Text, TokenIds
from gateway.schemas.messages import MAX_MESSAGES, ChatMessage, MessagesBody
from glmserve.errors import InvalidInput


class TokenizeBody(MessagesBody):
    """The JSON body of a request to /v1/tokenize: a conversation, or a prompt as it stands."""

    blank_texts: ClassVar[tuple[str, ...]] = ("prompt", "content")

    messages: list[ChatMessage] | None = Field(  # type: ignore[assignment]
        default=None,
        min_length=1,
        max_length=MAX_MESSAGES,
        fail_fast=True,
        description=MessagesBody.model_fields["messages"].description,
    )
    add_generation_prompt: bool | None = Field(default=None, description=FLAG)
    continue_final_message: bool | None = Field(default=None, description=FLAG)
    prompt: str | None = Field(default=None, description="a string")
    content: str | None = Field(default=None, description="a string")
    with_pieces: bool | None = Field(default=None, description=FLAG)
    add_special: bool | None = Field(default=None, description=FLAG)
    add_special_tokens: bool | None = Field(default=None, description=FLAG)
    return_token_strs: bool | None = Field(default=None, description=FLAG)


class DetokenizeBody(RequestBody):
    """The JSON body of a request to /v1/detokenize."""

    model: Text | None = Field(default=None, description="the name of a model, as GET /v1/models lists it")
    tokens: TokenIds = Field(description=f"a list of at most {MAX_TOKEN_IDS} token ids")


def check_ids(ids: list[int] | tuple[int, ...], largest: int, field: str) -> None:
    """Raises InvalidInput for an id that no token has; `field` is the request's name for them."""
    wrong = next((each for each in ids if each > largest), None)
    if wrong is not None:
        raise InvalidInput(f"The field {field} holds the token id {wrong}; ids go from 0 to {largest}.", field)
