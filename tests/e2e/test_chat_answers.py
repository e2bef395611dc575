"""Turns, two pictures, videos and tools: through HTTP come the very tokens that transformers generates."""

from __future__ import annotations

import base64
import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from PIL import Image
from serving import ANSWER_S, Service, png

from demo.exam import Asked, overlap, read_call
from demo.golden_set import MOST_TOKENS, GoldenChat, drawn_image, golden_chats, golden_questions, plain

pytestmark = pytest.mark.triton
CHATS = golden_chats()
LATER_FRAME_S = 0.04  # of the two frames of a stamp


def test_golden_chats_get_the_tokens_of_transformers(service: Service) -> None:
    assert len(CHATS) >= 50
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda chat: _ask(service, chat), CHATS))
    wrong = [
        (chat.id, answer["message"], chat.answer)
        for chat, answer in zip(CHATS, answers, strict=True)
        if answer["token_ids"] != chat.answer_ids
    ]
    assert not wrong


def test_a_call_that_the_demo_writes_is_a_call_for_the_client(service: Service) -> None:
    called = [chat for chat in CHATS if chat.kind == "tool" and chat.is_right]
    assert called
    for chat in called:
        name, arguments = read_call(plain(chat.answer))
        answer = _ask(service, chat)
        (call,) = answer["message"]["tool_calls"]
        assert answer["finish_reason"] == "tool_calls"
        assert call["function"]["name"] == name
        assert json.loads(call["function"]["arguments"]) == arguments


def test_a_place_that_the_demo_names_comes_in_pixels_of_the_image(service: Service) -> None:
    asked = [question for question in golden_questions() if question.kind == "box" and "[[" in plain(question.answer)]
    assert len(asked) >= 10
    for question in asked:
        image = drawn_image(question.seed)
        answer = service.ask(image, question.question, temperature=0, thinking=question.thinking)
        (found,) = answer["boxes"]
        sides = (image.width, image.height) * 2
        wanted = [round(n * side / 1000) for n, side in zip(json.loads(answer["result"])[0], sides, strict=True)]
        assert overlap(found["box"], wanted) >= 0.9, question.id


def _ask(service: Service, chat: GoldenChat) -> dict[str, Any]:
    """The choice that answers it."""
    asked = chat.asked
    body = {
        "messages": _messages(asked),
        "temperature": 0,
        "max_tokens": MOST_TOKENS,
        "return_token_ids": True,
        "chat_template_kwargs": {"enable_thinking": asked.thinking},
        **({"tools": list(asked.shared.tools)} if asked.shared.tools else {}),
    }
    request = urllib.request.Request(
        f"{service.gateway.url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=ANSWER_S) as reply:
        return dict(json.load(reply)["choices"][0])


def _messages(asked: Asked) -> list[dict[str, Any]]:
    """The exam's messages as a client of OpenAI's API sends them, with the pictures in their places."""
    pictures = iter(asked.pictures)
    messages = []
    for message in asked.messages:
        if "tool_calls" in message:
            calls = [{"id": "call_0", "type": "function", **call} for call in message["tool_calls"]]
            for call in calls:
                arguments = json.dumps(call["function"]["arguments"], ensure_ascii=False)
                call["function"] = {**call["function"], "arguments": arguments}
            messages.append({**message, "tool_calls": calls})
        elif message["role"] == "tool":
            messages.append({**message, "tool_call_id": "call_0"})
        elif isinstance(message["content"], list):
            content = [
                part if part["type"] == "text" else _video(asked) if part["type"] == "video" else _image(next(pictures))
                for part in message["content"]
            ]
            messages.append({**message, "content": content})
        else:
            messages.append(message)
    return messages


def _image(picture: Image.Image) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": _url(picture)}}


def _video(asked: Asked) -> dict[str, Any]:
    timestamps = [float(time) + later for time in asked.shared.times for later in (0.0, LATER_FRAME_S)]
    return {"type": "video", "frames": [_url(frame) for frame in asked.pictures], "timestamps": timestamps}


def _url(picture: Image.Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(picture)).decode()}"
