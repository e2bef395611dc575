"""The demo's short chat template renders plain chats exactly as the real model's template does."""

from __future__ import annotations

import itertools
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
}
SETTINGS = [
    {"add_generation_prompt": add} | thinking
    for add, thinking in itertools.product((True, False), ({}, {"enable_thinking": True}, {"enable_thinking": False}))
]


@cache
def compiled(template: Path) -> jinja2.Template:
    """As transformers compiles it: in a sandbox, blocks trimmed."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template.read_text(encoding="utf-8"))


def rendered(template: Path, messages: list[dict[str, Any]], settings: dict[str, bool]) -> str:
    return compiled(template).render(messages=messages, **settings)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("chat", CHATS)
def test_both_templates_render_the_same_string(chat: str, settings: dict[str, bool]) -> None:
    if not REAL.exists():
        pytest.skip("the real model's template is not here")
    ours = rendered(CHECKPOINT / "chat_template.jinja", CHATS[chat], settings)
    assert ours == rendered(REAL, CHATS[chat], settings)


def test_the_template_renders_the_same_whether_or_not_blocks_are_trimmed() -> None:
    source = (CHECKPOINT / "chat_template.jinja").read_text(encoding="utf-8")
    untrimmed = jinja2.Environment().from_string(source)
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
