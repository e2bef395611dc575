"""The OpenAI route through Triton says what the other one says, whole and streamed, turn after turn."""

from __future__ import annotations

import base64
import io
import json
import urllib.request
from typing import Any

import pytest
from PIL import Image
from serving import Service

from demo.golden_set import drawn_image, golden_questions
from gateway.openapi.responses import EXAMPLES

pytestmark = pytest.mark.triton
QUESTIONS = [question for question in golden_questions() if question.has_image][:12]


def chat(service: Service, body: dict[str, Any]) -> str:
    address = f"{service.gateway.url}/v1/chat/completions"
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return str(reply.read().decode())


def asked(image: Image.Image, text: str, **options: Any) -> dict[str, Any]:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    parts = [{"type": "image_url", "image_url": url}, {"type": "text", "text": text}]
    return {"messages": [{"role": "user", "content": parts}], "temperature": 0, "max_tokens": 96, **options}


def test_both_routes_say_the_same_whole_and_streamed(service: Service) -> None:
    for question in QUESTIONS:
        image = drawn_image(question.seed)
        wanted = service.ask(image, question.question, temperature=0, max_tokens=96)["result"]
        body = asked(image, question.question)
        assert json.loads(chat(service, body))["choices"][0]["message"]["content"] == wanted
        events = [
            line[6:] for line in chat(service, {**body, "stream": True}).split("\n\n") if line.startswith("data: ")
        ]
        assert events.pop() == "[DONE]"
        deltas = [json.loads(event)["choices"][0]["delta"] for event in events]
        assert "".join(delta.get("content", "") for delta in deltas) == wanted


@pytest.mark.parametrize("wanted", [0, 1, 3])
def test_as_many_alternatives_come_as_were_asked_for(service: Service, wanted: int) -> None:
    options = {"logprobs": True, "top_logprobs": wanted}
    image, text = drawn_image(QUESTIONS[0].seed), QUESTIONS[0].question
    lists = [
        service.ask(image, text, temperature=0, **options)["logprobs"],
        json.loads(chat(service, asked(image, text, **options)))["choices"][0]["logprobs"],
    ]
    streamed = chat(service, asked(image, text, stream=True, **options)).split("\n\n")
    choices = [json.loads(line[6:])["choices"][0] for line in streamed if line.startswith("data: {")]
    lists += [choice["logprobs"] for choice in choices if choice["logprobs"]]
    tokens = [token for each in lists for token in each["content"]]
    assert len(tokens) >= 3 and {len(token["top_logprobs"]) for token in tokens} == {wanted}
    assert wanted == 0 or all(token["top_logprobs"][0]["logprob"] >= token["logprob"] - 1e-3 for token in tokens)


def test_the_examples_of_the_documentation_are_the_demos_own(service: Service) -> None:
    wanted, found = EXAMPLES["VisionAnswer"], service.post(EXAMPLES["VisionBody"])
    told = ("result", "model", "success", "usage", "finish_reason")
    assert [found[name] for name in told] == [wanted[name] for name in told]
    wanted, found = EXAMPLES["Completion"], json.loads(chat(service, EXAMPLES["CompletionBody"]))
    assert found["choices"] == wanted["choices"] and wanted["usage"].items() <= found["usage"].items()


def test_a_second_question_about_the_same_image_is_answered(service: Service) -> None:
    first = QUESTIONS[0]
    body = asked(drawn_image(first.seed), first.question)
    answer = json.loads(chat(service, body))["choices"][0]["message"]["content"]
    body["messages"] += [{"role": "assistant", "content": answer}, {"role": "user", "content": first.question}]
    second = json.loads(chat(service, body))
    assert second["choices"][0]["message"]["content"] and second["usage"]["prompt_tokens_details"]["image_tokens"] > 0


def test_two_images_go_through_triton(service: Service) -> None:
    images = []
    for question in QUESTIONS[:2]:
        buffer = io.BytesIO()
        drawn_image(question.seed).save(buffer, "PNG")
        images.append(base64.b64encode(buffer.getvalue()).decode())
    body = service.post({"images": images, "prompt": "How many shapes are there?", "temperature": 0})
    assert body["success"] and body["usage"]["image_tokens"] > 0
