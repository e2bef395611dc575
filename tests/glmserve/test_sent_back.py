"""What clients send back, thoughts and tool results, becomes the ids that transformers gives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from real_checkpoint import REAL, needs_real
from tool_calls import checkpoint_with_tools

from glmserve.model.chat_template import Message, PromptBuilder, ToolCall
from glmserve.model.config import Checkpoint
from glmserve.model.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")
DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
ASKED = {"role": "user", "content": "Weather?"}
CALLED = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "北京", "days": 3}}}],
}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def result(*texts: str) -> dict[str, Any]:
    return {"role": "tool", "content": [{"type": "text", "text": text} for text in texts]}


CHATS: dict[str, list[dict[str, Any]]] = {
    "thoughts before the last question": [ASKED, said("<think>\nhm\n\nx</think>\n\nSunny."), ASKED],
    "thoughts only": [ASKED, said("<think>hm</think>"), ASKED],
    "two thoughts": [ASKED, said("<think>a</think>b<think>c</think>d"), ASKED],
    "an end without a beginning": [ASKED, said("hm</think>Sunny."), ASKED],
    "a beginning without an end": [ASKED, said("Sunny."), ASKED],
    "thoughts before a call": [ASKED, {**CALLED, "content": "<think>look</think>Let me see."}, result("a", "b")],
    "thoughts beside the text": [ASKED, {**CALLED, "reasoning_content": "look"}, result("a")],
    "a result": [ASKED, CALLED, {"role": "tool", "content": "sunny"}],
    "a result as a list": [ASKED, CALLED, result("sunny")],
    "a result of several texts": [ASKED, CALLED, result("sunny", " and\n", "warm")],
    "a result of nothing": [ASKED, CALLED, {"role": "tool", "content": ""}],
    "two results": [ASKED, CALLED, result("a", "b"), {"role": "tool", "content": "c"}, said("ok"), ASKED],
}


def message(sent: dict[str, Any]) -> Message:
    content = sent["content"]
    texts = (content,) if isinstance(content, str) else tuple(part["text"] for part in content)
    calls = [call["function"] for call in sent.get("tool_calls", ())]
    called = tuple(ToolCall(call["name"], call["arguments"]) for call in calls)
    return Message(sent["role"], texts, sent.get("reasoning_content"), called, isinstance(content, list))


@pytest.fixture(scope="module", params=["ours", pytest.param("real", marks=needs_real)])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "real":
        return REAL
    return checkpoint_with_tools(DEMO, tmp_path_factory.mktemp("with-tools") / "checkpoint")


@pytest.fixture(scope="module")
def both(folder: Path) -> tuple[PromptBuilder, Any]:
    builder = PromptBuilder.read(folder, Tokenizer.read(folder), Checkpoint.read(folder).image_token_id, 2)
    reference = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    reference.chat_template = (folder / "chat_template.jinja").read_text("utf-8")
    return builder, reference


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("name", CHATS)
def test_what_is_sent_back_becomes_the_templates_own_ids(
    both: tuple[PromptBuilder, Any], name: str, thinking: bool
) -> None:
    builder, reference = both
    ours = builder.build([message(sent) for sent in CHATS[name]], [], thinking, [TOOL])
    theirs = reference.apply_chat_template(
        CHATS[name], tools=[TOOL], add_generation_prompt=True, enable_thinking=thinking, return_dict=False
    )
    assert ours.tolist() == theirs
