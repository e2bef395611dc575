"""Pydantic AI: an output by its default, a tool; by a schema; by responses; with tools; and streamed."""

from typing import Literal

from pydantic import BaseModel, Field
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

MODEL = "GLM-4.6V-Flash-WEB"


class Shape(BaseModel, extra="forbid"):
    """A shape and how often it is there."""

    colour: Literal["red", "green", "blue"]
    count: int = Field(ge=0, le=9)


provider = OpenAIProvider(base_url="http://127.0.0.1:5000/v1", api_key="none")
chat = OpenAIChatModel(MODEL, provider=provider)
for model in (chat, OpenAIResponsesModel(MODEL, provider=provider)):
    assert isinstance(Agent(model, output_type=Shape).run_sync("What is there?").output, Shape)
assert isinstance(Agent(chat, output_type=NativeOutput(Shape)).run_sync("What is there?").output, Shape)
agent = Agent(chat, output_type=Shape)
assert isinstance(agent.run_stream_sync("What is there?").get_output(), Shape)
assert Agent(chat).run_sync("Say something.").usage
print("done")
