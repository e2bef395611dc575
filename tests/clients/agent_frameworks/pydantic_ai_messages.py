"""Pydantic AI over Anthropic's messages: a text, an output by its default, a tool, by a schema, and streamed."""

from typing import Literal

from anthropic import AsyncAnthropic
from pydantic import BaseModel, Field
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.providers.anthropic import AnthropicProvider


class Shape(BaseModel, extra="forbid"):
    """A shape and how often it is there."""

    colour: Literal["red", "green", "blue"]
    count: int = Field(ge=0, le=9)


client = AsyncAnthropic(base_url="http://127.0.0.1:5000", api_key="none")
model = AnthropicModel("GLM-4.6V-Flash-WEB", provider=AnthropicProvider(anthropic_client=client))
assert Agent(model).run_sync("Who are you?").output
agent = Agent(model, output_type=Shape)
assert isinstance(agent.run_sync("What is there?").output, Shape)
assert isinstance(agent.run_stream_sync("What is there?").get_output(), Shape)
print("done")
