"""LangChain: structured output in each of its ways, tools, streams, responses, and an agent."""

from typing import Literal

from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

MODEL = "GLM-4.6V-Flash-WEB"


class Shape(BaseModel, extra="forbid"):
    """A shape and how often it is there."""

    colour: Literal["red", "green", "blue"]
    count: int = Field(ge=0, le=9)


@tool
def weather(city: Literal["Paris", "Rome"]) -> str:
    """Tells the weather."""
    return f"It rains in {city}."


chat = ChatOpenAI(base_url="http://127.0.0.1:5000/v1", api_key="none", model=MODEL, max_retries=0, max_tokens=200)
for method in ("function_calling", "json_schema"):
    assert isinstance(chat.with_structured_output(Shape, method=method).invoke("What is there?"), Shape)
assert isinstance(chat.with_structured_output(Shape).invoke("What is there?"), Shape)
for choice in ("any", "weather"):
    assert chat.bind_tools([weather], tool_choice=choice).invoke("Weather?").tool_calls[0]["name"] == "weather"
assert "".join(chunk.text for chunk in chat.stream("Say something.")) is not None
responses = ChatOpenAI(
    base_url="http://127.0.0.1:5000/v1", api_key="none", model=MODEL, max_retries=0, use_responses_api=True
)
assert isinstance(responses.with_structured_output(Shape).invoke("What is there?"), Shape)
anthropic = ChatAnthropic(base_url="http://127.0.0.1:5000", api_key="none", model=MODEL, max_retries=0, max_tokens=200)
assert isinstance(anthropic.with_structured_output(Shape).invoke("What is there?"), Shape)
# The demo likes to call twice at once, which LangChain takes for a mistake in a structured answer.
one_at_a_time = chat.model_copy(update={"model_kwargs": {"parallel_tool_calls": False}})
agent = create_agent(one_at_a_time, [weather], response_format=Shape)
state = agent.invoke({"messages": [{"role": "user", "content": "What is there?"}]}, {"recursion_limit": 50})
assert isinstance(state["structured_response"], Shape)
print("done")
