"""OpenAI's Agents SDK: a typed output, tools and a handoff's end, over responses and over chat, whole and streamed."""

import asyncio
from typing import Any, Literal

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

MODEL = "GLM-4.6V-Flash-WEB"


class Shape(BaseModel, extra="forbid"):
    """A shape and how often it is there."""

    colour: Literal["red", "green", "blue"]
    count: int = Field(ge=0, le=9)


noted: list[str] = []


@function_tool
def note(colour: Literal["red", "green", "blue"]) -> str:
    """Notes a colour."""
    noted.append(colour)
    return "noted"


async def run(model: Any) -> None:
    """All of it with one of the two models."""
    said = await Runner.run(Agent("plain", instructions="Be brief.", model=model), "Who are you?")
    assert said.final_output and said.raw_responses[0].usage.total_tokens > 0
    typed = Agent("typed", model=model, output_type=Shape)
    assert isinstance((await Runner.run(typed, "What is there?")).final_output, Shape)
    must = ModelSettings(tool_choice="required", parallel_tool_calls=False, max_tokens=96)
    caller = Agent("caller", model=model, tools=[note], model_settings=must, tool_use_behavior="stop_on_first_tool")
    called = await Runner.run(caller, "Note a colour.")
    assert called.final_output == "noted" and noted
    talk = called.to_input_list()
    after = await Runner.run(Agent("after", model=model, tools=[note]), [*talk, {"role": "user", "content": "Thanks."}])
    assert after.final_output is not None
    stream = Runner.run_streamed(Agent("plain", model=model), "Who are you?")
    kinds = [event.type async for event in stream.stream_events()]
    assert "raw_response_event" in kinds and stream.final_output


async def both() -> None:
    """The two ways in which the SDK speaks to a model."""
    client = AsyncOpenAI(base_url="http://127.0.0.1:5000/v1", api_key="none")
    await run(OpenAIResponsesModel(MODEL, client))
    await run(OpenAIChatCompletionsModel(MODEL, client))


set_tracing_disabled(True)
asyncio.run(both())
print("done")
