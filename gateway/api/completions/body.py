"""What a client may send to /v1/completions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from gateway.api.tokens.body import TokenIds
from gateway.schemas.common import FLAG, AnswerFields, Text, read_as
from gateway.schemas.conversation import Conversation
from gateway.schemas.openai import StreamOptions
from gateway.schemas.structured_output import GuidedFields
from glmserve.errors import InvalidInput
from glmserve.limits import MAX_LOGPROBS
from glmserve.sampling_parameters import Sampling

_ONE = "a string, a list of token ids, or a list of one of these"


class TextBody(GuidedFields, AnswerFields):
    """The JSON body of a request to /v1/completions."""

    model: Text | None = Field(default=None, description="the name of a model, as GET /v1/models lists it")
    prompt: Text | TokenIds | Annotated[list[Text | TokenIds], Field(max_length=1)] = Field(
        description=f"{_ONE}; one request continues one prompt"
    )
    suffix: Literal[""] | None = Field(default=None, description="left out: nothing is inserted into a text here")
    echo: bool | None = Field(default=None, description=FLAG)
    stream: bool | None = Field(default=None, description=FLAG)
    stream_options: StreamOptions | None = Field(default=None, description='{"include_usage": true}')
    best_of: Literal[1] | None = Field(default=None, description="1: one answer a request")
    n: Literal[1] | None = Field(default=None, description="1: one answer a request")
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = Field(
        default=None, description=f"a whole number from 0 to {MAX_LOGPROBS}"
    )
    top_logprobs: Literal[0] | None = Field(default=None, description="0: here logprobs itself says of how many")
    thinking: Literal[False] | None = Field(
        default=None, description="false: thinking is the chat template's, which this route leaves out"
    )
    frequency_penalty: float | None = Field(default=None, ge=0, le=0, description="0; use repetition_penalty instead")
    presence_penalty: float | None = Field(default=None, ge=0, le=0, description="0; use repetition_penalty instead")
    add_special_tokens: bool | None = Field(default=None, description=FLAG)

    def sampling(self) -> Sampling:
        sampling = AnswerFields.sampling(self.model_copy(update={"logprobs": None}))
        return replace(sampling, logprobs=self.logprobs is not None, top_logprobs=self.logprobs or 0)

    def raw(self) -> str | tuple[int, ...]:
        """The one prompt; raises InvalidInput where there is none."""
        prompt = self.prompt
        if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
            prompt = prompt[0]
        if not prompt:
            raise InvalidInput(f"The field prompt must be {_ONE}; it holds nothing.", "prompt")
        return prompt if isinstance(prompt, str) else tuple(prompt)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Asked:
    """A request to /v1/completions: what is continued, by which model, and how the answer is wanted."""

    model: str | None
    conversation: Conversation
    is_stream: bool
    echoes: bool
    includes_usage: bool


def parse_text(body: bytes) -> Asked:
    """The request in a body; raises InvalidInput with a sentence that names the field at fault."""
    read = read_as(TextBody, body, "model and prompt")
    if read.echo and read.logprobs is not None:
        raise InvalidInput("The field echo cannot be used with logprobs: a prompt's own tokens have none.", "echo")
    conversation = Conversation((), read.sampling(), read.stops(), grammar=read.answer_rules(), raw=read.raw())
    includes_usage = bool(read.stream_options and read.stream_options.include_usage)
    return Asked(read.model, conversation, bool(read.stream), bool(read.echo), includes_usage)
