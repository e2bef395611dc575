"""llm: a prompt, a schema and a tool, by its plugin for OpenAI's clients."""

from typing import Literal

from llm.default_plugins.openai_models import Chat
from pydantic import BaseModel, Field


class Shape(BaseModel, extra="forbid"):
    """A shape and how often it is there."""

    colour: Literal["red", "green", "blue"]
    count: int = Field(ge=0, le=9)


def weather(city: str) -> str:
    """Tells the weather."""
    return f"It rains in {city}."


model = Chat(
    "glm",
    key="none",
    model_name="GLM-4.6V-Flash-WEB",
    api_base="http://127.0.0.1:5000/v1",
    vision=True,
    supports_schema=True,
    supports_tools=True,
)
assert model.prompt("Say something.", key="none").text() is not None
Shape.model_validate_json(model.prompt("What is there?", schema=Shape, key="none").text())
assert model.chain("Weather?", tools=[weather], key="none").text() is not None
print("done")
