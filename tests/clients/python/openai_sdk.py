"""OpenAI's SDK: chat, parsing, tools by name and by force, streams, responses and text completions."""

import json
from typing import Any, Literal

from openai import OpenAI, pydantic_function_tool
from pydantic import BaseModel, Field

MODEL = "GLM-4.6V-Flash-WEB"


class Shape(BaseModel, extra="forbid"):
    """A shape and how often it is there."""

    colour: Literal["red", "green", "blue"]
    count: int = Field(ge=0, le=9)


client = OpenAI(base_url="http://127.0.0.1:5000/v1", api_key="none", max_retries=0)
messages: list[Any] = [{"role": "user", "content": "What is there?"}]
tool = pydantic_function_tool(Shape)
named: Any = {"type": "function", "function": {"name": "Shape"}}

parsed = client.chat.completions.parse(model=MODEL, messages=messages, response_format=Shape)
assert isinstance(parsed.choices[0].message.parsed, Shape)

for choice in ("required", named):
    done = client.chat.completions.parse(model=MODEL, messages=messages, tools=[tool], tool_choice=choice)
    calls = done.choices[0].message.tool_calls
    assert calls and isinstance(calls[0].function.parsed_arguments, Shape), done

with client.chat.completions.stream(model=MODEL, messages=messages, tools=[tool], tool_choice=named) as stream:
    final = stream.get_final_completion().choices[0]
assert final.message.tool_calls and isinstance(final.message.tool_calls[0].function.parsed_arguments, Shape)

call = final.message.tool_calls[0]
messages += [
    {
        "role": "assistant",
        "tool_calls": [
            {"id": call.id, "type": "function", "function": {"name": "Shape", "arguments": call.function.arguments}}
        ],
    },
    {"role": "tool", "tool_call_id": call.id, "content": "It is so."},
]
assert client.chat.completions.create(model=MODEL, messages=messages, tools=[tool]).choices[0].finish_reason

answer = client.responses.parse(model=MODEL, input="What is there?", text_format=Shape)
assert isinstance(answer.output_parsed, Shape)
function: Any = {"type": "function", "name": "shape", "parameters": Shape.model_json_schema(), "strict": False}
asked: list[Any] = [{"role": "user", "content": "What is there?"}]
forced = client.responses.create(model=MODEL, input=asked, tools=[function], tool_choice="required")
(item,) = [item for item in forced.output if item.type == "function_call"][:1]
Shape.model_validate_json(item.arguments)
asked += [*forced.output, {"type": "function_call_output", "call_id": item.call_id, "output": "It is so."}]
with client.responses.stream(model=MODEL, input=asked, tools=[function]) as events:
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created" and events.get_final_response().status in ("completed", "incomplete")

text = client.completions.create(model=MODEL, prompt="The circle is", max_tokens=4)
assert text.choices[0].finish_reason in ("stop", "length")
print(json.dumps(kinds[-1]), "done")
