"""LiteLLM: completions, responses, messages, and a router that keeps its deployment whatever is asked of it."""

import json
from typing import Any, Literal

import litellm
from litellm import Router
from pydantic import BaseModel, Field

MODEL = "openai/GLM-4.6V-Flash-WEB"


class Shape(BaseModel, extra="forbid"):
    """A shape and how often it is there."""

    colour: Literal["red", "green", "blue"]
    count: int = Field(ge=0, le=9)


tool: Any = {"type": "function", "function": {"name": "shape", "parameters": Shape.model_json_schema()}}
where: dict[str, Any] = {"model": MODEL, "api_base": "http://127.0.0.1:5000/v1", "api_key": "none", "max_retries": 0}
asked: list[Any] = [{"role": "user", "content": "What is there?"}]
parsed = litellm.completion(**where, messages=asked, response_format=Shape)
Shape.model_validate_json(parsed.choices[0].message.content)
called = litellm.completion(**where, messages=asked, tools=[tool], tool_choice="required")
Shape.model_validate_json(called.choices[0].message.tool_calls[0].function.arguments)
chunks = list(litellm.completion(**where, messages=asked, stream=True, stream_options={"include_usage": True}))
assert litellm.stream_chunk_builder(chunks).usage.total_tokens > 0
text = litellm.text_completion(
    **{**where, "model": MODEL.replace("openai/", "text-completion-openai/")}, prompt="One", max_tokens=4
)
assert text.choices[0].finish_reason in ("stop", "length")
assert litellm.responses(**where, input="What is there?").status in ("completed", "incomplete")
spoken = litellm.completion(
    model="anthropic/GLM-4.6V-Flash-WEB",
    api_base="http://127.0.0.1:5000",
    api_key="none",
    messages=asked,
    max_tokens=16,
)
assert spoken.choices[0].finish_reason in ("stop", "length") and spoken.usage.prompt_tokens > 0

# Two names for one service: what is refused is refused, and both stay in rotation.
deployments = [{"model_name": "ours", "litellm_params": dict(where), "model_info": {"id": name}} for name in ("a", "b")]
router = Router(model_list=deployments, num_retries=0)
for _ in range(4):
    for ask in (
        lambda: router.embedding(model="ours", input="Hi"),
        lambda: router.completion(model="ours", messages=[{"role": "user", "content": ""}]),
        lambda: router.responses(model="ours", input="Hi", previous_response_id="resp_1"),
    ):
        try:
            ask()
        except litellm.exceptions.RateLimitError:
            raise
        except Exception as error:
            assert "No deployments available" not in str(error), error
        else:
            raise AssertionError("what is not served was answered")
for _ in range(4):
    assert router.completion(model="ours", messages=asked, max_tokens=4).choices
print(json.dumps({"left": len(deployments)}), "done")
