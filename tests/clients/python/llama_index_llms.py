"""LlamaIndex: text by its default, a text completion; chat; structured output; and a function that is called."""

from typing import Literal

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, Field

MODEL = "GLM-4.6V-Flash-WEB"


class Shape(BaseModel, extra="forbid"):
    """A shape and how often it is there."""

    colour: Literal["red", "green", "blue"]
    count: int = Field(ge=0, le=9)


def weather(city: Literal["Paris", "Rome"]) -> str:
    """Tells the weather."""
    return f"It rains in {city}."


where = {"model": MODEL, "api_base": "http://127.0.0.1:5000/v1", "api_key": "none", "max_retries": 0, "max_tokens": 100}
plain = OpenAILike(**where)
assert isinstance(plain.complete("The circle is").text, str)
assert all(part.delta is not None for part in plain.stream_complete("The circle is"))
chat = OpenAILike(**where, is_chat_model=True, is_function_calling_model=True)
assert chat.chat([ChatMessage(role="user", content="Hi")]).message
assert isinstance(chat.as_structured_llm(Shape).complete("What is there?").raw, Shape)
found = chat.predict_and_call([FunctionTool.from_defaults(weather)], "Weather?", tool_required=True)
assert "It rains" in str(found)
formatted = OpenAILike(**where, is_chat_model=True, should_use_structured_outputs=True)
assert isinstance(formatted.as_structured_llm(Shape).complete("What is there?").raw, Shape)
print("done")
