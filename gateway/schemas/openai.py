"""What a client may send to /v1/chat/completions, read into the same conversation as every other request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field, ValidationError

from gateway.schemas.common import FLAG, AnswerFields, Body, read_json, refusal, with_parameters
from gateway.schemas.conversation import Conversation
from gateway.schemas.messages import MessagesBody
from glmserve.sampling_parameters import PARAMETERS


class StreamOptions(Body):
    """What a stream tells beside the answer."""

    include_usage: bool | None = None


@with_parameters({alias: parameter for parameter in PARAMETERS for alias in parameter.openai_aliases})
class CompletionBody(AnswerFields, MessagesBody):
    """The JSON body of a request to /v1/chat/completions."""

    n: Literal[1] | None = Field(default=None, description="1: one answer a request")
    stream: bool | None = Field(default=None, description=FLAG)
    stream_options: StreamOptions | None = Field(default=None, description='{"include_usage": true}')
    tool_choice: Literal["auto", "none"] | None = Field(default=None, description='"auto" or "none"')

    def conversation(self, thinks_by_default: bool) -> Conversation:
        grammar, asked = self.grammar(), self.thinks()
        tools = () if self.tool_choice == "none" else tuple(self.tools or ())
        return Conversation(
            turns=self.turns(),
            sampling=self.sampling(),
            stop=self.stops(),
            thinking=(thinks_by_default and not grammar) if asked is None else asked,
            grammar=grammar,
            tools=tuple(tool.model_dump(exclude_none=True) for tool in tools),
            prompt_field="messages",
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
