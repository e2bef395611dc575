"""Mistakes in requests: each is a 4xx that names what is wrong, in the shape that clients read."""

from __future__ import annotations

from typing import Any

from behaviours.asking import ASKED, CHAT, Service
from behaviours.listed import Behaviour, behaviours_of, holds, refused

_LLAMA = "llama.cpp test_chat_completion"
_VLLM = "vLLM test_non_object_body_validation"
_ROLE = {"role": "system", "content": "test"}
_MESSAGES: list[tuple[str, Any]] = [
    ("null", None),
    ("text", "string"),
    ("a list of a number", [123]),
    ("a message without anything", [{}]),
    ("a role that is a number", [{"role": 123}]),
    ("content that is a number", [{"role": "system", "content": 123}]),
    ("a message without anything after another", [_ROLE, {}]),
    ("no messages", []),
    ("a system text alone", [_ROLE]),
]


@holds(_LLAMA, "An error is an object with `message`, `type`, `param` and `code`.")
def openai_error(service: Service) -> bool:
    error = service.chat(temperature=9).error
    return set(error) == {"message", "type", "param", "code"} and error["param"] == "temperature"


@holds("vLLM test_basic", "A body of a form is refused with 415.")
def wrong_type(service: Service) -> bool:
    reply = service.send("POST", CHAT, b"a=b", {"Content-Type": "application/x-www-form-urlencoded"})
    return reply.status == 415


@holds("vLLM test_validation_exception_handler", "Broken JSON is a 400 that says where it breaks.")
def broken_json(service: Service) -> bool:
    reply = service.send("POST", CHAT, b'{"messages": [}', {"Content-Type": "application/json"})
    return reply.status == 400 and "line 1" in reply.text


@holds(
    "vLLM test_validation_exception_handler", "The sentence of a refusal shows no more than a line of what was sent."
)
def short_sentence(service: Service) -> bool:
    reply = service.chat(temperature="x" * 5000)
    return reply.status == 400 and len(reply.text) < 600


@holds("vLLM test_serving_models", "A model that is not here is a 404 that names the one that is.")
def unknown_model(service: Service) -> bool:
    reply = service.chat(model="gpt-99")
    return reply.status == 404 and reply.error["code"] == "model_not_found" and "GLM" in reply.error["message"]


@holds("vLLM test_error_sanitization", "No refusal tells of paths or addresses of memory.")
def nothing_of_the_inside(service: Service) -> bool:
    texts = [service.chat(**wrong).text for wrong in ({"temperature": "a"}, {"tools": 3}, {"messages": "x"})]
    return not any(word in text for text in texts for word in ("0x", "/home", "/usr", ".py", "Traceback"))


@holds("vLLM test_x_request_id", "`X-Request-Id` comes back as it was sent, once.")
def request_id(service: Service) -> bool:
    reply = service.send(
        "POST",
        CHAT,
        {"messages": ASKED, "max_tokens": 1},
        {"Content-Type": "application/json", "X-Request-Id": "caller-1"},
    )
    return [value for name, value in reply.headers.items() if name.lower() == "x-request-id"] == ["caller-1"]


@holds("vLLM test_x_request_id", "Without one, a refusal and an answer each have a new one.")
def new_request_id(service: Service) -> bool:
    replies = [service.chat(max_tokens=1), service.chat(temperature=9)]
    ids = [value for reply in replies for name, value in reply.headers.items() if name.lower() == "x-request-id"]
    return len(set(ids)) == 2 and all(len(each) == 32 for each in ids)


@holds("vLLM test_extra_fields", "A field that is likely a slip is told in the header `Warning`.")
def slip(service: Service) -> bool:
    reply = service.chat(temprature=1)
    return reply.status == 200 and "temperature" in {n.lower(): v for n, v in reply.headers.items()}["warning"]


BEHAVIOURS: list[Behaviour] = [
    *behaviours_of(globals()),
    *(
        refused(_LLAMA, f"`messages` of {what} are refused.", CHAT, {"messages": sent}, "messages")
        for what, sent in _MESSAGES
    ),
    refused(_LLAMA, "A request without `messages` is refused.", CHAT, {}, "messages"),
    *(
        refused(_VLLM, f"A body that is {what} is refused.", CHAT, sent)
        for what, sent in (("text", "no object"), ("a list", ["not", "an object"]), ("a number", 42), ("null", None))
    ),
    refused(
        "vLLM test_chat_error",
        "A role that nobody knows is refused by name.",
        CHAT,
        {"messages": [{"role": "robot", "content": "Hi"}]},
        "robot",
    ),
]
