"""instructor: a model by tools, which is its default, by JSON Schema, and through Anthropic's SDK."""

from typing import Literal

import instructor
from anthropic import Anthropic
from openai import OpenAI
from pydantic import BaseModel, Field

MODEL = "GLM-4.6V-Flash-WEB"


class Shape(BaseModel, extra="forbid"):
    """A shape and how often it is there."""

    colour: Literal["red", "green", "blue"]
    count: int = Field(ge=0, le=9)


openai = OpenAI(base_url="http://127.0.0.1:5000/v1", api_key="none", max_retries=0)
asked = [{"role": "user", "content": "What is there?"}]
for mode in (instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT, instructor.Mode.JSON_SCHEMA):
    client = instructor.from_openai(openai, mode=mode)
    found = client.chat.completions.create(model=MODEL, response_model=Shape, messages=asked, max_retries=0)
    assert isinstance(found, Shape), mode
anthropic = Anthropic(base_url="http://127.0.0.1:5000", api_key="none", max_retries=0)
tools = instructor.from_anthropic(anthropic)
found = tools.messages.create(model=MODEL, max_tokens=200, response_model=Shape, messages=asked, max_retries=0)
assert isinstance(found, Shape)
print("done")
