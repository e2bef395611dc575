"""A coding agent's requests as they come: beta headers, adaptive thinking, images in results, reminders, counts."""

import base64
import json
from typing import Any

from anthropic import Anthropic

MODEL = "GLM-4.6V-Flash-WEB"
BETAS = ["claude-code-20250219", "interleaved-thinking-2025-05-14", "fine-grained-tool-streaming-2025-05-14"]
CACHED: Any = {"type": "ephemeral", "ttl": "1h"}
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
)
SYSTEM: list[Any] = [
    {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.160; cc_entrypoint=cli; cch=00000;"},
    {"type": "text", "text": "You are a coding agent.", "cache_control": CACHED},
    {"type": "text", "text": "# Rules\nBe brief.", "cache_control": CACHED},
]
TOOLS: list[Any] = [
    {
        "name": "Read",
        "description": "Reads a file, or looks at an image.",
        "input_schema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "file_path": {"enum": ["a.py", "b.png"]},
                "limit": {"type": "integer", "exclusiveMinimum": 0, "maximum": 99},
            },
            "required": ["file_path"],
            "additionalProperties": False,
        },
        "eager_input_streaming": True,
    },
    {
        "type": "custom",
        "name": "TodoWrite",
        "description": "Keeps a list.",
        "input_schema": {
            "type": "object",
            "properties": {
                "todos": {
                    "type": "array",
                    "maxItems": 2,
                    "items": {
                        "type": "object",
                        "properties": {
                            "content": {"type": "string", "maxLength": 8},
                            "status": {"enum": ["pending", "completed"]},
                        },
                        "required": ["content", "status"],
                        "additionalProperties": False,
                    },
                }
            },
            "required": ["todos"],
            "additionalProperties": False,
        },
        "cache_control": CACHED,
    },
]
client = Anthropic(base_url="http://127.0.0.1:5000", api_key="none", max_retries=0, default_headers={"x-app": "cli"})
shared: dict[str, Any] = {
    "model": MODEL,
    "system": SYSTEM,
    "tools": TOOLS,
    "betas": BETAS,
    "thinking": {"type": "adaptive", "display": "omitted"},
}
asking: dict[str, Any] = {
    **shared,
    "max_tokens": 160,
    "metadata": {"user_id": json.dumps({"device_id": "d", "session_id": "s"})},
    "output_config": {"effort": "high"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "extra_body": {"temperature": 1},
}
image = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PIXEL).decode()},
}
talk: list[Any] = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "<system-reminder>\nToday is a day.\n</system-reminder>"},
            {"type": "text", "text": "Look at b.png.", "cache_control": CACHED},
        ],
    },
]
for turn in range(3):
    counted = client.beta.messages.count_tokens(**shared, messages=talk).input_tokens
    choice: Any = {"type": "any"} if turn < 2 else {"type": "auto"}
    with client.beta.messages.stream(**asking, messages=talk, tool_choice=choice) as stream:
        kinds = [event.type for event in stream]
        message = stream.get_final_message()
    usage = message.usage
    assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == counted, (usage, counted)
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
    calls = [block for block in message.content if block.type == "tool_use"]
    assert calls or message.stop_reason != "tool_use"
    if turn < 2:
        assert calls and message.stop_reason in ("tool_use", "max_tokens"), message
    talk.append({"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in message.content]})
    said: list[Any] = [{"type": "text", "text": "Seen."}, image] if turn == 0 else [{"type": "text", "text": "Done."}]
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": said} for call in calls]
    talk.append({"role": "user", "content": [*results, {"type": "text", "text": "Go on.", "cache_control": CACHED}]})
    talk.append({"role": "system", "content": "Remember the list."})
title = client.beta.messages.create(
    model=MODEL,
    max_tokens=64,
    system=SYSTEM,
    messages=[{"role": "user", "content": "Title this."}],
    betas=["structured-outputs-2025-12-15"],
    output_config={
        "format": {
            "type": "json_schema",
            "schema": {
                "type": "object",
                "properties": {"title": {"type": "string", "maxLength": 12}},
                "required": ["title"],
                "additionalProperties": False,
            },
        }
    },
)
assert set(json.loads(title.content[0].text)) == {"title"}  # type: ignore[union-attr]
quota = client.beta.messages.create(model=MODEL, max_tokens=1, messages=[{"role": "user", "content": "quota"}])
assert quota.usage.output_tokens <= 1
print("done")
