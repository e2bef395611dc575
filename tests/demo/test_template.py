"""The demo's chat template renders chats, tools, thoughts, pictures and videos as the real model's template does."""

from __future__ import annotations

import itertools
import json
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from demo.golden_set import CHECKPOINT

REAL = Path(__file__).parents[3] / "shared" / "glm-4.6v-flash" / "chat_template.jinja"
IMAGE = {"type": "image", "image": "a.png"}
TEXT = {"type": "text", "text": "What is it?"}

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln", "days": 2, "in": {"x": "é"}}}}

CHATS: dict[str, list[dict[str, Any]]] = {
    "text": [{"role": "user", "content": "Hello"}],
    "nothink typed": [{"role": "user", "content": "Hello/nothink"}],
    "picture": [{"role": "user", "content": [{"type": "image"}, TEXT]}],
    "pictures between texts": [{"role": "user", "content": [TEXT, IMAGE, IMAGE, TEXT, TEXT]}],
    "unknown part": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}, TEXT]}],
    "system": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hi \n"}],
    "system parts": [{"role": "system", "content": [TEXT]}, {"role": "user", "content": [TEXT]}],
    "turns": [
        {"role": "user", "content": [IMAGE, TEXT]},
        {"role": "assistant", "content": "  A star.\n"},
        {"role": "user", "content": "Sure?"},
    ],
    "turns with thoughts": [
        {"role": "user", "content": [IMAGE, TEXT]},
        {"role": "assistant", "content": "<think>hm\n</think>\nA star."},
        {"role": "user", "content": [TEXT]},
        {"role": "assistant", "content": "<think>\nwell </think>\n\nYes."},
    ],
    "thoughts apart": [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [TEXT], "reasoning_content": " a greeting\n"},
    ],
    "empty answer": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""}],
    "nothing": [],
    "call and result": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "21"},
    ],
    "calls with thoughts": [
        {"role": "user", "content": [IMAGE, TEXT]},
        {"role": "assistant", "content": "I ask.", "reasoning_content": " hm ", "tool_calls": [CALL, CALL["function"]]},
        {"role": "tool", "content": "21"},
        {"role": "tool", "content": "22"},
        {"role": "assistant", "content": "It is 21."},
        {"role": "user", "content": "Sure?"},
    ],
    "results of parts": [
        {"role": "user", "content": "Show me"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": [TEXT, {"type": "image_url"}, {"type": "video"}, {"type": "x", "y": 1}]},
        {"role": "tool", "content": [{"output": "done"}, "and over"]},
        {"role": "tool", "content": "5"},
    ],
    "video": [{"role": "user", "content": [{"type": "video"}, TEXT, IMAGE, {"video": "a.mp4"}]}],
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "<a> & 'b' é", "parameters": {}}},
    {"name": "bare"},
]
SETTINGS: list[dict[str, Any]] = [
    {"add_generation_prompt": add} | thinking | tools
    for add, thinking, tools in itertools.product(
        (True, False), ({}, {"enable_thinking": True}, {"enable_thinking": False}), ({}, {"tools": TOOLS})
    )
]


def to_json(value: Any, ensure_ascii: bool = True) -> str:
    """As transformers writes JSON in templates: without HTML's escapes."""
    return json.dumps(value, ensure_ascii=ensure_ascii)


@cache
def compiled(template: Path) -> jinja2.Template:
    """As transformers compiles it: in a sandbox, blocks trimmed."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = to_json
    return environment.from_string(template.read_text(encoding="utf-8"))


def rendered(template: Path, messages: list[dict[str, Any]], settings: dict[str, Any]) -> str:
    return compiled(template).render(messages=messages, **settings)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("chat", CHATS)
def test_both_templates_render_the_same_string(chat: str, settings: dict[str, Any]) -> None:
    if not REAL.exists():
        pytest.skip("the real model's template is not here")
    ours = rendered(CHECKPOINT / "chat_template.jinja", CHATS[chat], settings)
    assert ours == rendered(REAL, CHATS[chat], settings)


def test_the_template_renders_the_same_whether_or_not_blocks_are_trimmed() -> None:
    source = (CHECKPOINT / "chat_template.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment()
    environment.filters["tojson"] = to_json
    untrimmed = environment.from_string(source)
    for messages, settings in itertools.product(CHATS.values(), SETTINGS):
        trimmed = rendered(CHECKPOINT / "chat_template.jinja", messages, settings)
        assert untrimmed.render(messages=messages, **settings) == trimmed


def test_an_image_question_renders_as_the_model_was_trained() -> None:
    chat = CHATS["picture"]
    template = CHECKPOINT / "chat_template.jinja"
    start = "[gMASK]<sop><|user|>\n<|begin_of_image|><|image|><|end_of_image|>What is it?"
    off = rendered(template, chat, {"add_generation_prompt": True, "enable_thinking": False})
    assert off == start + "/nothink<|assistant|>\n<think></think>\n"
    assert rendered(template, chat, {"add_generation_prompt": True}) == start + "<|assistant|>\n"
