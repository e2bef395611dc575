"""The official OpenAI SDK's responses and text completions, against the gateway under its real web server."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from live_gateway import live_gateway
from pydantic import BaseModel

openai = pytest.importorskip("openai")
MODEL = "GLM-4.6V-Flash-WEB"
TOOL = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}
CALL = "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>北京</arg_value>\n</tool_call>"


class Colour(BaseModel):
    """What an answer is parsed into."""

    name: str


@pytest.fixture(scope="module")
def sdk(build: Path) -> Generator[Any]:
    with (
        live_gateway(build) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def test_a_text_is_answered(sdk: Any) -> None:
    done = sdk.responses.create(model=MODEL, input="Say [[A red circle.]]", instructions="Be brief.")
    assert done.output_text == "A red circle." and done.status == "completed" and done.usage.output_tokens > 0


def test_a_stream_is_put_together_by_the_sdk(sdk: Any) -> None:
    kinds = [event.type for event in sdk.responses.create(model=MODEL, input="Say [[One two.]]", stream=True)]
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    asked = {"model": MODEL, "input": f"Say [[<think>Hm, so.</think>Look: {CALL}]]", "tools": [TOOL]}
    with sdk.responses.stream(**asked, reasoning={"effort": "high"}) as stream:
        grown = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert grown == final.output_text == "Look:"
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call"]


def test_an_answer_is_parsed_into_a_model(sdk: Any) -> None:
    done = sdk.responses.parse(model=MODEL, input='Say [[{"name": "red"}]]', text_format=Colour)
    assert done.output_parsed == Colour(name="red")


def test_the_output_of_a_function_goes_back(sdk: Any) -> None:
    asked: list[Any] = [{"role": "user", "content": f"Say [[{CALL}]]"}]
    first = sdk.responses.create(model=MODEL, input=asked, tools=[TOOL])
    (call,) = first.output
    asked += first.output
    asked.append({"type": "function_call_output", "call_id": call.call_id, "output": "Say [[sunny]]"})
    assert sdk.responses.create(model=MODEL, input=asked, tools=[TOOL]).output_text == "sunny"


def test_a_wrong_request_names_the_field(sdk: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.responses.create(model=MODEL, input="Hi", previous_response_id="resp_1")
    assert caught.value.param == "previous_response_id" and "send the earlier items" in str(caught.value)


def test_a_text_goes_on(sdk: Any) -> None:
    done = sdk.completions.create(model=MODEL, prompt="Say [[ and on ]]", max_tokens=9)
    assert done.choices[0].text == " and on "
    chunks = sdk.completions.create(model=MODEL, prompt="Say [[ and on ]]", max_tokens=9, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == " and on "
