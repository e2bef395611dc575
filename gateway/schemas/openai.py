"""What a client may send to /v1/chat/completions, read into the same conversation as every other request."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import Field, ValidationError

from gateway.schemas.common import FLAG, MAX_TOKEN_IDS, Body, TokenIds, read_json, refusal, with_parameters
from gateway.schemas.conversation import Conversation, Turn
from gateway.schemas.messages import MessagesBody, check_continued
from gateway.schemas.structured_output import GuidedFields, packed_rules
from gateway.schemas.token_fields import TokenFields
from gateway.schemas.tools import CHOICES, Choice, tool_use
from gateway.schemas.unknown_fields import check_declined, unknown_fields
from glmserve.answer_rules import TextRule
from glmserve.errors import InvalidInput
from glmserve.limits import MAX_ANSWERS
from glmserve.sampling_parameters import PARAMETERS


class StreamOptions(Body):
    """What a stream tells beside the answer."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: bool | None = None


@dataclass(frozen=True)
class Wanted:
    """How a completion is written: `usage` after a stream, or with each of its chunks, whether the ids of tokens come
    too, or stand in log-probabilities for their texts, whether thoughts come, whether each chunk has `timings`, and the
    text that each answer begins with."""

    usage: bool = False
    running_usage: bool = False
    token_ids: bool = False
    tokens_as_ids: bool = False
    thoughts: bool = True
    timings: bool = False
    echoed: str = ""


@with_parameters({alias: parameter for parameter in PARAMETERS for alias in parameter.openai_aliases})
class CompletionBody(GuidedFields, TokenFields, MessagesBody):
    """The JSON body of a request to /v1/chat/completions."""

    prompt_token_ids: TokenIds | None = Field(
        default=None, min_length=1, description=f"a list of 1 to {MAX_TOKEN_IDS} token ids, instead of messages"
    )
    n: Annotated[int, Field(ge=1, le=MAX_ANSWERS)] | None = Field(
        default=None, description=f"a whole number from 1 to {MAX_ANSWERS}"
    )
    stream: bool | None = Field(default=None, description=FLAG)
    stream_options: StreamOptions | None = Field(
        default=None, description='{"include_usage": true, "continuous_usage_stats": true}'
    )
    tool_choice: Choice | None = Field(default=None, description=CHOICES)
    parallel_tool_calls: bool | None = Field(default=None, description=FLAG)
    echo: bool | None = Field(default=None, description=FLAG)
    add_generation_prompt: bool | None = Field(default=None, description=FLAG)
    continue_final_message: bool | None = Field(default=None, description=FLAG)
    include_reasoning: bool | None = Field(default=None, description=FLAG)
    return_token_ids: bool | None = Field(default=None, description=FLAG)
    return_tokens_as_token_ids: bool | None = Field(default=None, description=FLAG)
    timings_per_token: bool | None = Field(default=None, description=FLAG)
    return_video_frames: bool | None = Field(default=None, description=FLAG)

    def conversation(self, thinks_by_default: bool) -> Conversation:
        rule, asked = self.text_rule(), self.thinks()
        use = tool_use(self.tools, self.tool_choice, self.parallel_tool_calls is False, rule is not None)
        if rule is not None and use.rule is not None and use.rule.needed:
            _check_agree(rule)
            rule = None
        thinking = (thinks_by_default and rule is None) if asked is None else asked
        turns, sampling = self.turns(), self.sampling()
        conversation = Conversation(
            turns=turns,
            sampling=sampling,
            stop=self.stops(),
            thinking=thinking,
            grammar=packed_rules(rule, use.rule, thinking),
            tools=use.offered,
            most_calls=use.most_calls,
            finish_of_calls=use.finish_reason,
            prompt_field="messages",
            answers=self.n or 1,
            shows_frames=bool(self.return_video_frames),
            asks=self.add_generation_prompt is not False and not self.continue_final_message,
            **self.token_options(sampling),
            partial_on_timeout=bool(self.partial_on_timeout),
        )
        if self.continue_final_message:
            return self._continuing(conversation, turns[-1])
        if self.prompt_token_ids is None:
            return conversation
        raw = tuple(self.prompt_token_ids)
        return replace(conversation, turns=(), raw=raw, is_text=False, prompt_field="prompt_token_ids")

    def wanted(self, turns: tuple[Turn, ...]) -> Wanted:
        """How the answer to a conversation of these turns is written; raises InvalidInput."""
        if self.stream_options is not None and not self.stream:
            raise InvalidInput("The field stream_options needs stream to be true.", "stream_options")
        options = self.stream_options or StreamOptions()
        last = turns[-1] if turns and turns[-1].role == "assistant" else None
        said = "".join(part for part in last.parts if isinstance(part, str)) if last else ""
        return Wanted(
            usage=bool(options.include_usage),
            running_usage=bool(options.include_usage and options.continuous_usage_stats),
            token_ids=bool(self.return_token_ids),
            tokens_as_ids=bool(self.return_tokens_as_token_ids),
            thoughts=self.include_reasoning is not False,
            timings=bool(self.timings_per_token),
            echoed=said if self.echo else "",
        )

    def _continuing(self, conversation: Conversation, last: Turn) -> Conversation:
        check_continued(last, bool(self.add_generation_prompt))
        return replace(conversation, continues=True, rules=replace(conversation.rules, continues=True))


_STAND_IN = {"messages": [{"role": "user", "content": "?"}]}
"""For the messages of a prompt that comes as token ids."""


def _check_agree(rule: TextRule) -> None:
    """An answer that must be a call has no text to shape. Agents send `response_format` along all the same; any other
    field raises InvalidInput, as vLLM does."""
    if rule.field != "response_format":
        raise InvalidInput(
            f"The fields {rule.field} and tool_choice contradict each other: one asks for a text, one for a call.",
            rule.field,
        )


@dataclass(frozen=True)
class Completion:
    """A request to /v1/chat/completions: what is asked, of which model, and how the answer is wanted."""

    model: str | None
    conversation: Conversation
    is_stream: bool
    wanted: Wanted


def parse_completion(body: bytes, thinks_by_default: bool) -> Completion:
    """The request in a body; raises InvalidInput with a sentence that names the field at fault."""
    document: dict[str, Any] = read_json(body, "model and messages")
    if document.get("prompt_token_ids") is not None:
        if document.get("messages") is not None:
            raise InvalidInput("The request must have one of messages and prompt_token_ids.", "prompt_token_ids")
        document |= _STAND_IN
    try:
        read = CompletionBody.model_validate(document)
    except ValidationError as error:
        raise refusal(error, document, CompletionBody) from None
    check_declined(document, read)
    conversation = read.conversation(thinks_by_default)
    if unknown := unknown_fields(document, read):
        conversation = replace(conversation, unknown=unknown)
    return Completion(read.model, conversation, bool(read.stream), read.wanted(conversation.turns))
