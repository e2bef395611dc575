"""What a client may send to /v1/chat/completions, read into the same conversation as every other request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field, ValidationError

from gateway.schemas.common import FLAG, AnswerFields, Body, read_json, refusal, with_parameters
from gateway.schemas.conversation import Conversation
from gateway.schemas.messages import MessagesBody
from gateway.schemas.structured_output import GuidedFields, packed_rules
from gateway.schemas.tools import CHOICES, Choice, tool_use
from glmserve.answer_rules import TextRule
from glmserve.errors import InvalidInput
from glmserve.sampling_parameters import PARAMETERS


class StreamOptions(Body):
    """What a stream tells beside the answer."""

    include_usage: bool | None = None


@with_parameters({alias: parameter for parameter in PARAMETERS for alias in parameter.openai_aliases})
class CompletionBody(GuidedFields, AnswerFields, MessagesBody):
    """The JSON body of a request to /v1/chat/completions."""

    n: Literal[1] | None = Field(default=None, description="1: one answer a request")
    stream: bool | None = Field(default=None, description=FLAG)
    stream_options: StreamOptions | None = Field(default=None, description='{"include_usage": true}')
    tool_choice: Choice | None = Field(default=None, description=CHOICES)
    parallel_tool_calls: bool | None = Field(default=None, description=FLAG)

    def conversation(self, thinks_by_default: bool) -> Conversation:
        rule, asked = self.text_rule(), self.thinks()
        use = tool_use(self.tools, self.tool_choice, self.parallel_tool_calls is False, rule is not None)
        if rule is not None and use.rule is not None and use.rule.needed:
            _check_agree(rule)
            rule = None
        thinking = (thinks_by_default and rule is None) if asked is None else asked
        return Conversation(
            turns=self.turns(),
            sampling=self.sampling(),
            stop=self.stops(),
            thinking=thinking,
            grammar=packed_rules(rule, use.rule, thinking),
            tools=use.offered,
            most_calls=use.most_calls,
            finish_of_calls=use.finish_reason,
            prompt_field="messages",
            partial_on_timeout=bool(self.partial_on_timeout),
        )


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
    includes_usage: bool


def parse_completion(body: bytes, thinks_by_default: bool) -> Completion:
    """The request in a body; raises InvalidInput with a sentence that names the field at fault."""
    document = read_json(body, "model and messages")
    try:
        read = CompletionBody.model_validate(document)
    except ValidationError as error:
        raise refusal(error, document, CompletionBody) from None
    includes_usage = bool(read.stream_options and read.stream_options.include_usage)
    return Completion(read.model, read.conversation(thinks_by_default), bool(read.stream), includes_usage)
