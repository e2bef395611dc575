"""What a client may send to /v1/completions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from gateway.schemas.common import FLAG, Text, TokenIds
from gateway.schemas.conversation import Conversation
from gateway.schemas.openai import StreamOptions, Wanted
from gateway.schemas.structured_output import GuidedFields
from gateway.schemas.token_fields import TokenFields
from gateway.schemas.unknown_fields import read_knowing
from glmserve.errors import InvalidInput
from glmserve.limits import MAX_ANSWERS, MAX_LOGPROBS, MAX_PROMPTS
from glmserve.sampling_parameters import Sampling

_Prompts = Annotated[list[Text | TokenIds], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
_NO_TEMPLATE = "thinking is the chat template's, which this route leaves out"


class TextBody(GuidedFields, TokenFields):
    """The JSON body of a request to /v1/completions."""

    blank_texts: ClassVar[tuple[str, ...]] = ("stop", "prompt")

    model: Text | None = Field(default=None, description="the name of a model, as GET /v1/models lists it")
    prompt: Text | TokenIds | _Prompts = Field(
        description=f"a string, a list of token ids, or a list of 1 to {MAX_PROMPTS} of these"
    )
    suffix: Literal[""] | None = Field(default=None, description="left out: nothing is inserted into a text here")
    echo: bool | None = Field(default=None, description=FLAG)
    stream: bool | None = Field(default=None, description=FLAG)
    stream_options: StreamOptions | None = Field(
        default=None, description='{"include_usage": true, "continuous_usage_stats": true}'
    )
    return_token_ids: bool | None = Field(default=None, description=FLAG)
    return_tokens_as_token_ids: bool | None = Field(default=None, description=FLAG)
    timings_per_token: bool | None = Field(default=None, description=FLAG)
    mm_processor_kwargs: None = Field(default=None, description="left out: no images come with a text")
    n: Annotated[int, Field(ge=1, le=MAX_ANSWERS)] | None = Field(
        default=None, description=f"a whole number from 1 to {MAX_ANSWERS}"
    )
    best_of: Annotated[int, Field(ge=1, le=MAX_ANSWERS)] | None = Field(
        default=None, description="as many as n: every answer that is generated comes"
    )
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = Field(
        default=None, description=f"a whole number from 0 to {MAX_LOGPROBS}"
    )
    top_logprobs: Literal[0] | None = Field(default=None, description="0: here logprobs itself says of how many")
    thinking: Literal[False] | None = Field(default=None, description=f"false: {_NO_TEMPLATE}")
    enable_thinking: Literal[False] | None = Field(default=None, description=f"false: {_NO_TEMPLATE}")
    reasoning_effort: Literal["none", "minimal"] | None = Field(
        default=None, description=f'"none" or "minimal": {_NO_TEMPLATE}'
    )
    add_special_tokens: bool | None = Field(default=None, description=FLAG)

    def sampling(self) -> Sampling:
        sampling = TokenFields.sampling(self.model_copy(update={"logprobs": None}))
        return replace(sampling, logprobs=self.logprobs is not None, top_logprobs=self.logprobs or 0)

    def prompts(self) -> list[str | tuple[int, ...]]:
        """Each prompt; raises InvalidInput for one that holds nothing."""
        sent = self.prompt
        found: list[Any] = sent if isinstance(sent, list) and sent and not isinstance(sent[0], int) else [sent]
        empty = next((i for i, prompt in enumerate(found) if not prompt), None)
        if empty is not None:
            place = "prompt" if found == [sent] else f"prompt[{empty}]"
            raise InvalidInput(f"The field {place} must be a string or a list of token ids; it holds nothing.", place)
        return [prompt if isinstance(prompt, str) else tuple(prompt) for prompt in found]


@dataclass(frozen=True)
class Asked:
    """A request to /v1/completions: by which model each prompt is continued, and how the answers are wanted."""

    model: str | None
    conversations: tuple[Conversation, ...]
    is_stream: bool
    echoes: bool
    wanted: Wanted


def parse_text(body: bytes) -> Asked:
    """The request in a body; raises InvalidInput with a sentence that names the field at fault."""
    read, unknown = read_knowing(TextBody, body, "model and prompt")
    if read.echo and read.logprobs is not None:
        raise InvalidInput("The field echo cannot be used with logprobs: a prompt's own tokens have none.", "echo")
    if read.best_of not in (None, read.n or 1):
        raise InvalidInput("The field best_of must be as many as n: every answer that is generated comes.", "best_of")
    if read.stream_options is not None and not read.stream:
        raise InvalidInput("The field stream_options needs stream to be true.", "stream_options")
    conversations = tuple(conversation_of_text(read, prompt, unknown) for prompt in read.prompts())
    options = read.stream_options or StreamOptions()
    wanted = Wanted(
        usage=bool(options.include_usage),
        running_usage=bool(options.include_usage and options.continuous_usage_stats),
        token_ids=bool(read.return_token_ids),
        tokens_as_ids=bool(read.return_tokens_as_token_ids),
        timings=bool(read.timings_per_token),
    )
    return Asked(read.model, conversations, bool(read.stream), bool(read.echo), wanted)


def conversation_of_text(read: TextBody, prompt: str | tuple[int, ...], unknown: tuple[str, ...]) -> Conversation:
    """One of a body's prompts, with all that is asked of its answer."""
    sampling = read.sampling()  # each with a seed of its own, where the request has none
    return Conversation(
        (),
        sampling,
        read.stops(),
        grammar=read.answer_rules(),
        raw=prompt,
        answers=read.n or 1,
        unknown=unknown,
        partial_on_timeout=bool(read.partial_on_timeout),
        **read.token_options(sampling),
    )
