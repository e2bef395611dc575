"""Anthropic's SDK: messages, streams, tools, counting, and an agent's loop as coding agents run it."""

from typing import Any

from anthropic import Anthropic, BadRequestError

MODEL = "GLM-4.6V-Flash-WEB"
TOOLS: list[Any] = [
    {
        "name": "Read",
        "description": "Reads a file.",
        "input_schema": {
            "type": "object",
            "properties": {"lines": {"type": "integer", "minimum": 0, "maximum": 9}, "whole": {"type": "boolean"}},
            "required": ["lines", "whole"],
            "additionalProperties": False,
        },
        "cache_control": {"type": "ephemeral"},
    }
]
SYSTEM: list[Any] = [
    {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=00000"},
    {"type": "text", "text": "You read files.", "cache_control": {"type": "ephemeral"}},
]

client = Anthropic(base_url="http://127.0.0.1:5000", api_key="none", max_retries=0)
asked: list[Any] = [
    {"role": "user", "content": [{"type": "text", "text": "Read it.", "cache_control": {"type": "ephemeral"}}]}
]

plain = client.messages.create(model=MODEL, max_tokens=16, messages=asked)
assert plain.stop_reason in ("end_turn", "max_tokens") and plain.usage.output_tokens > 0
counted = client.messages.count_tokens(model=MODEL, messages=asked)
assert counted.input_tokens == plain.usage.input_tokens + (plain.usage.cache_read_input_tokens or 0)

# An agent: it must read first, then it may; each turn goes back with its results, and once with an error.
choices: list[Any] = [
    {"type": "any"},
    {"type": "tool", "name": "Read", "disable_parallel_tool_use": True},
    {"type": "auto"},
]
for turn, choice in enumerate(choices):
    with client.messages.stream(
        model=MODEL,
        max_tokens=128,
        system=SYSTEM,
        messages=asked,
        tools=TOOLS,
        tool_choice=choice,
        metadata={"user_id": "agent"},
    ) as stream:
        grown = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert grown == "".join(block.text for block in message.content if block.type == "text")
    calls = [block for block in message.content if block.type == "tool_use"]
    if choice["type"] != "auto":
        assert calls and message.stop_reason in ("tool_use", "max_tokens"), message  # the demo may call and call
        assert all(set(call.input) == {"lines", "whole"} for call in calls)  # type: ignore[call-overload]
    asked.append({"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in message.content]})
    results: list[Any] = [
        {
            "type": "tool_result",
            "tool_use_id": call.id,
            "content": [{"type": "text", "text": "Nothing."}],
            "is_error": turn == 1,
        }
        for call in calls
    ]
    asked.append(
        {"role": "user", "content": [*results, {"type": "text", "text": "<system-reminder>Go on.</system-reminder>"}]}
    )

thoughts = client.messages.create(
    model=MODEL, max_tokens=32, messages=asked, tools=TOOLS, thinking={"type": "enabled", "budget_tokens": 1024}
)
assert thoughts.type == "message"
try:
    client.messages.create(model=MODEL, max_tokens=16, messages=[{"role": "user", "content": []}])
except BadRequestError as error:
    assert error.body["error"]["type"] == "invalid_request_error"  # type: ignore[index]
else:
    raise AssertionError("a message without content was answered")
assert client.models.list().data[0].id == MODEL
print("done")
