"""The blocks and fields of Anthropic's messages that are taken, and those that are refused."""

from __future__ import annotations

from typing import Any

from behaviours.asking import ASKED, MESSAGES, PICTURE
from behaviours.listed import Behaviour, answered, refused
from behaviours.messages import USE, after_a_call, text, user

_CONVERTED = "vLLM test_anthropic_messages_conversion"
_BLOCKS = "vLLM test_content_block_validation"
_SYSTEM = "vLLM test_system_hoist"
_LLAMA = "llama.cpp test_compat_anthropic"


def _asked(**fields: Any) -> dict[str, Any]:
    return {"messages": ASKED, "max_tokens": 8, **fields}


def _with_block(block: dict[str, Any], role: str = "assistant") -> dict[str, Any]:
    return _asked(messages=[*ASKED, {"role": role, "content": [block]}, {"role": "user", "content": "Go on."}])


BEHAVIOURS: list[Behaviour] = [
    answered(_LLAMA, "A system text is taken.", MESSAGES, _asked(system="You are helpful.")),
    answered(
        _LLAMA,
        "Two text blocks are one message.",
        MESSAGES,
        _asked(messages=[user(text("What is"), text(" the answer?"))]),
    ),
    answered(
        _LLAMA,
        "A conversation of several turns is answered.",
        MESSAGES,
        _asked(messages=[*ASKED, {"role": "assistant", "content": "Hi!"}, {"role": "user", "content": "Who?"}]),
    ),
    answered(
        _LLAMA,
        "A result after text of the same message is taken.",
        MESSAGES,
        _asked(
            messages=[
                *ASKED,
                {"role": "assistant", "content": [USE]},
                user(text("Here:"), {"type": "tool_result", "tool_use_id": "toolu_1", "content": "25°C"}),
            ]
        ),
    ),
    answered(
        _LLAMA,
        "A result with `is_error` is taken.",
        MESSAGES,
        _asked(messages=after_a_call({"is_error": True, "content": "not found"})),
    ),
    *(
        answered(_LLAMA, f"`{name}` is taken.", MESSAGES, _asked(**{name: value}))
        for name, value in (
            ("temperature", 0.5),
            ("top_p", 0.9),
            ("top_k", 40),
            ("stop_sequences", ["\n", "END"]),
            ("metadata", {"user_id": "u"}),
        )
    ),
    answered(
        _LLAMA,
        "A small `budget_tokens` is taken.",
        MESSAGES,
        _asked(max_tokens=100, thinking={"type": "enabled", "budget_tokens": 50}),
    ),
    answered(
        "vLLM test_messages (anthropic)",
        "`max_tokens` above the room is cut to it.",
        MESSAGES,
        _asked(max_tokens=8192, stop_sequences=[" "]),
    ),
    answered(
        _CONVERTED,
        "A `source` without a type is base64.",
        MESSAGES,
        _asked(
            messages=[user({"type": "image", "source": {"media_type": "image/png", "data": PICTURE}}, text("What?"))]
        ),
    ),
    answered(
        _CONVERTED,
        "A `source` without `media_type` is taken.",
        MESSAGES,
        _asked(messages=[user({"type": "image", "source": {"type": "base64", "data": PICTURE}}, text("What?"))]),
    ),
    refused(
        _CONVERTED,
        "A `source` of a URL without one is refused.",
        MESSAGES,
        _asked(messages=[user({"type": "image", "source": {"type": "url"}}, text("What?"))]),
        "source",
    ),
    answered(_CONVERTED, "`cache_salt` is taken.", MESSAGES, _asked(cache_salt="tenant")),
    answered(
        _CONVERTED,
        "`redacted_thinking` of an earlier answer is taken and left out.",
        MESSAGES,
        _with_block({"type": "redacted_thinking", "data": "opaque"}),
    ),
    answered(
        _CONVERTED,
        "A turn of thinking alone may be sent back.",
        MESSAGES,
        _with_block({"type": "thinking", "thinking": "Hm.", "signature": "a"}),
    ),
    answered(
        _CONVERTED,
        "What a coding agent sends with each request is taken: effort, and adaptive thinking without display.",
        MESSAGES,
        _asked(output_config={"effort": "high"}, thinking={"type": "adaptive", "display": "omitted"}),
    ),
    refused(
        _CONVERTED,
        "`thinking` without a type is refused.",
        MESSAGES,
        _asked(thinking={"budget_tokens": 2048}),
        "thinking",
    ),
    refused(
        _CONVERTED,
        "`thinking.display` of another word is refused.",
        MESSAGES,
        _asked(thinking={"type": "adaptive", "display": "full"}),
        "thinking",
    ),
    refused(_CONVERTED, "A wrong value is a 400, never a 500.", MESSAGES, _asked(stop_sequences=3), "stop_sequences"),
    refused(_CONVERTED, "So it is to count.", f"{MESSAGES}/count_tokens", {"messages": ASKED, "tools": 3}, "tools"),
    refused(
        _BLOCKS,
        "A `tool_use` without an id is refused.",
        MESSAGES,
        _with_block({k: v for k, v in USE.items() if k != "id"}),
        "id",
    ),
    refused(_BLOCKS, "So is one with an empty id.", MESSAGES, _with_block({**USE, "id": ""}), "id"),
    refused(
        _BLOCKS,
        "A `tool_use` without a name is refused.",
        MESSAGES,
        _with_block({k: v for k, v in USE.items() if k != "name"}),
        "name",
    ),
    refused(_BLOCKS, "So is one with an empty name.", MESSAGES, _with_block({**USE, "name": ""}), "name"),
    refused(
        _BLOCKS,
        "A `tool_use` without input is refused.",
        MESSAGES,
        _with_block({k: v for k, v in USE.items() if k != "input"}),
        "input",
    ),
    answered(_BLOCKS, "An input of {} is taken.", MESSAGES, _with_block({**USE, "input": {}})),
    refused(
        _BLOCKS,
        "A `tool_result` without `tool_use_id` is refused.",
        MESSAGES,
        _with_block({"type": "tool_result", "content": "a"}, "user"),
        "tool_use_id",
    ),
    refused(
        _BLOCKS,
        "So is one with an empty one.",
        MESSAGES,
        _with_block({"type": "tool_result", "tool_use_id": "", "content": "a"}, "user"),
        "tool_use_id",
    ),
    refused(_BLOCKS, "A text block without text is refused.", MESSAGES, _with_block({"type": "text"}, "user"), "text"),
    answered(_BLOCKS, 'A text block of "" is taken.', MESSAGES, _asked(messages=[user(text(""), text("What?"))])),
    refused(
        _BLOCKS, "An image without a source is refused.", MESSAGES, _with_block({"type": "image"}, "user"), "source"
    ),
    refused(
        _BLOCKS,
        "A thinking block without thinking is refused.",
        MESSAGES,
        _with_block({"type": "thinking", "signature": "a"}),
        "thinking",
    ),
    answered(_BLOCKS, 'A thinking block of "" is taken.', MESSAGES, _with_block({"type": "thinking", "thinking": ""})),
    answered(
        _BLOCKS,
        "A thinking block without a signature is taken.",
        MESSAGES,
        _with_block({"type": "thinking", "thinking": "Hm."}),
    ),
    refused(
        _BLOCKS,
        "`redacted_thinking` without data is refused.",
        MESSAGES,
        _with_block({"type": "redacted_thinking"}),
        "data",
    ),
    answered(
        _BLOCKS,
        "A `tool_reference` in a result is taken.",
        MESSAGES,
        _asked(messages=after_a_call({"content": [{"type": "tool_reference", "tool_name": "search"}]})),
    ),
    answered(_SYSTEM, "System blocks of a list are taken.", MESSAGES, _asked(system=[text("Be terse.")])),
    answered(
        _SYSTEM,
        "A system message of text may come first.",
        MESSAGES,
        _asked(messages=[{"role": "system", "content": "Be terse."}, *ASKED]),
    ),
    answered(
        _SYSTEM,
        "So may one of blocks, beside `system`.",
        MESSAGES,
        _asked(system="From above.", messages=[{"role": "system", "content": [text("Be terse.")]}, *ASKED]),
    ),
    refused(
        _SYSTEM, "Any other role is refused.", MESSAGES, _asked(messages=[{"role": "tool", "content": "x"}]), "role"
    ),
]
