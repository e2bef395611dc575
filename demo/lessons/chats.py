"""A lesson as a chat, and how the chat template writes it: what stands before, what the model has to say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from demo.lessons.questions import Question

IMAGE = "<|begin_of_image|>{}<|end_of_image|>"
TOOLS = """<|system|>
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{}</tools>

For each function call, output the function name and arguments within the following XML format:
<tool_call>{{function-name}}
<arg_key>{{arg-key-1}}</arg_key>
<arg_value>{{arg-value-1}}</arg_value>
<arg_key>{{arg-key-2}}</arg_key>
<arg_value>{{arg-value-2}}</arg_value>
...
</tool_call>"""


@dataclass(frozen=True)
class Shown:
    """Where a picture's tokens stand: an index into the pictures of the row."""

    picture: int


@dataclass(frozen=True)
class Said:
    """What the model has to write; nothing is learnt from the spans that nobody could foresee."""

    kind: str
    text: str
    unweighed: tuple[tuple[int, int], ...] = ()


Piece = str | Shown | Said


@dataclass(frozen=True)
class Turn:
    """A user's or a tool's words, and what the model answers: in words, or by a call."""

    asked: Question
    call: str = ""  # the call that is the answer
    is_tool_result: bool = False  # the words are a tool's


@dataclass(frozen=True)
class Chat:
    """Turns behind what a row shares."""

    turns: tuple[Turn, ...]
    thinking: bool = False
    new_line: bool = False  # between the pictures and the first words


@dataclass(frozen=True)
class Shared:
    """What the chats of a row have in common: tools, and pictures or the frames of a video."""

    tools: tuple[dict[str, Any], ...] = ()
    pictures: int = 0
    times: tuple[str, ...] = field(default=())  # of a video's frame pairs, as "0.3"; the pictures are then its frames

    def pieces(self) -> list[Piece]:
        text = "[gMASK]<sop>"
        if self.tools:
            text += TOOLS.format("".join(json.dumps(tool, ensure_ascii=False) + "\n" for tool in self.tools))
        pieces: list[Piece] = [text + "<|user|>\n" + ("<|begin_of_video|>" if self.times else "")]
        before, after = IMAGE.split("{}")
        for i in range(self.pictures):
            stamp = f"{self.times[i]} seconds" if self.times else ""
            pieces += [before, Shown(i), after + stamp]
        if self.times:
            pieces.append("<|end_of_video|>")
        return pieces


def chat_pieces(chat: Chat) -> list[Piece]:
    """What follows the shared part."""
    pieces: list[Piece] = []
    for i, turn in enumerate(chat.turns):
        asked, is_last = turn.asked, i == len(chat.turns) - 1
        if turn.is_tool_result:
            prompt = f"\n<tool_response>\n{asked.text}\n</tool_response>\n"
        else:
            prompt = ("\n" if i > 0 or chat.new_line else "") + asked.text + ("" if chat.thinking else "/nothink")
        thinks = chat.thinking and is_last
        prompt += "<|assistant|>\n" + ("" if thinks else "<think></think>\n")
        answer = turn.call or asked.answer
        end = "<|observation|>" if turn.call else "<|user|>"
        thought = f"<think>{asked.reasoning}</think>\n" if thinks else ""
        spans = tuple((a + len(thought), b + len(thought)) for a, b in asked.unweighed)
        if not is_last and without_box(answer) != answer:
            pieces.append(prompt + without_box(answer) + end)
        else:
            pieces += [prompt, Said(asked.kind, thought + answer + end, spans)]
    return pieces


def without_box(answer: str) -> str:
    """An answer as clients get it, and send it back with the next question."""
    return answer.replace("<|begin_of_box|>", "").replace("<|end_of_box|>", "")


def call(name: str, arguments: dict[str, Any]) -> str:
    """A call as GLM writes it."""
    lines = [f"<tool_call>{name}"]
    for key, value in arguments.items():
        written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        lines += [f"<arg_key>{key}</arg_key>", f"<arg_value>{written}</arg_value>"]
    return "\n".join([*lines, "</tool_call>"])


def single(questions: Sequence[Question]) -> tuple[Turn, ...]:
    return tuple(Turn(question) for question in questions)
