"""Thinking: how it is switched, where thoughts come, and what of them goes back."""

from __future__ import annotations

from typing import Any

from behaviours.asking import ASKED, CHAT, SHAPE, Service
from behaviours.listed import Behaviour, answered, behaviours_of, holds

_INCLUDED = "vLLM test_include_reasoning"
_EFFORT = "vLLM test_reasoning_effort"
_CHECKED = "vLLM test_chat_completion_request_validations"
_THOUGHT = "<think>It is round.</think>A circle."


def _begins_thinking(service: Service, **fields: Any) -> bool:
    """Whether the prompt lets the model think, as the model's template writes it."""
    ids = service.chat(max_tokens=1, return_token_ids=True, **fields).body["prompt_token_ids"]
    return "/nothink" not in service.post("/v1/detokenize", {"tokens": ids}).body["prompt"]


@holds(_INCLUDED, "Thoughts come in `reasoning` and in `reasoning_content`, never in `content`.")
def apart(service: Service) -> bool:
    message = service.saying(_THOUGHT).chat(thinking=True).choice["message"]
    return message["reasoning"] == message["reasoning_content"] == "It is round." and message["content"] == "A circle."


@holds(_INCLUDED, "So they do in a stream.")
def apart_in_a_stream(service: Service) -> bool:
    reply = service.saying(_THOUGHT).stream(thinking=True)
    thoughts = "".join(choice["delta"].get("reasoning", "") for choice in reply.choices)
    return thoughts == "It is round." and reply.streamed() == "A circle."


@holds(_INCLUDED, "`include_reasoning` of false leaves them out.")
def left_out(service: Service) -> bool:
    message = service.saying(_THOUGHT).chat(thinking=True, include_reasoning=False).choice["message"]
    return not message.get("reasoning") and message["content"] == "A circle."


@holds(_INCLUDED, "So it does in a stream.")
def left_out_of_a_stream(service: Service) -> bool:
    reply = service.saying(_THOUGHT).stream(thinking=True, include_reasoning=False)
    return not any(choice["delta"].get("reasoning") for choice in reply.choices) and reply.streamed() == "A circle."


@holds(_INCLUDED, "Thoughts that are left out still count in `reasoning_tokens`.")
def counted(service: Service) -> bool:
    usage = service.saying(_THOUGHT).chat(thinking=True, include_reasoning=False).usage
    return usage["completion_tokens_details"]["reasoning_tokens"] > 0


@holds(_EFFORT, "`reasoning_effort` of `none` switches thinking off.")
def no_effort(service: Service) -> bool:
    return not _begins_thinking(service, reasoning_effort="none")


@holds(_EFFORT, "`chat_template_kwargs.enable_thinking` switches it on and off.")
def template_switch(service: Service) -> bool:
    on, off = ({"chat_template_kwargs": {"enable_thinking": is_on}} for is_on in (True, False))
    return _begins_thinking(service, **on) and not _begins_thinking(service, **off)


@holds("vLLM test_structured_outputs", "Thoughts come before an answer in a shape, and are free.")
def before_a_shape(service: Service) -> bool:
    told = service.saying('<think>Free.</think>{"colour": "red", "count": 2}')
    wanted = {"type": "json_schema", "json_schema": {"name": "shape", "schema": SHAPE}}
    message = told.chat(thinking=True, response_format=wanted).choice["message"]
    return message["reasoning"] == "Free." and message["content"].startswith("{")


@holds("llama.cpp test_tool_call", "An answer without thoughts has no `reasoning_content`.")
def none(service: Service) -> bool:
    return service.saying("A circle.").chat().choice["message"].get("reasoning_content") is None


@holds("llama.cpp test_template", "Thoughts of earlier answers are dropped as the model's template drops them.")
def dropped(service: Service) -> bool:
    said = {"role": "assistant", "content": "<think>It is round.</think>\nA circle."}
    plain = {"role": "assistant", "content": "A circle."}
    last = {"role": "user", "content": "Go on."}
    with_thoughts, without = (service.tokens(messages=[*ASKED, each, last])["tokens"] for each in (said, plain))
    return bool(with_thoughts == without)


@holds(_CHECKED, "`reasoning_content` and `reasoning` of an earlier answer are the same.")
def names(service: Service) -> bool:
    said = {"role": "assistant", "content": "4"}
    last = {"role": "user", "content": "Sure?"}
    talks = [[*ASKED, {**said, name: "2+2"}, last] for name in ("reasoning", "reasoning_content")]
    return service.tokens(messages=talks[0])["tokens"] == service.tokens(messages=talks[1])["tokens"]


BEHAVIOURS: list[Behaviour] = [
    *behaviours_of(globals()),
    *(
        answered(
            _EFFORT,
            f"`reasoning_effort` of `{effort}` is taken.",
            CHAT,
            {"messages": ASKED, "max_tokens": 2, "reasoning_effort": effort},
        )
        for effort in ("low", "medium", "high")
    ),
    answered(
        _EFFORT,
        "Other keys of `chat_template_kwargs` do no harm.",
        CHAT,
        {"messages": ASKED, "max_tokens": 2, "chat_template_kwargs": {"custom": "value"}},
    ),
]
