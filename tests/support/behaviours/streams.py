"""Streams of chat completions: chunks, usage, errors and their end."""

from __future__ import annotations

from typing import Any

from behaviours.asking import ASKED, CHAT, Service
from behaviours.listed import Behaviour, behaviours_of, holds, refused

_VLLM = "vLLM test_chat"
_LLAMA = "llama.cpp test_chat_completion"


def _asked(**fields: Any) -> dict[str, Any]:
    return {"messages": ASKED, "max_tokens": 4, **fields}


@holds(_VLLM, "The pieces of a stream are the whole answer.")
def pieces_are_the_answer(service: Service) -> bool:
    return service.stream(max_tokens=16).streamed() == service.chat(max_tokens=16).content


@holds(_VLLM, "One chunk has a `finish_reason`, the last one, and it is that of the whole answer.")
def one_finish(service: Service) -> bool:
    reasons = [choice["finish_reason"] for choice in service.stream().choices]
    return reasons[-1] == service.chat().choice["finish_reason"] and not any(reasons[:-1])


@holds(_VLLM, "Only the first chunk has a `role`.")
def one_role(service: Service) -> bool:
    first, *others = [choice["delta"] for choice in service.stream().choices]
    return first["role"] == "assistant" and not any("role" in delta for delta in others)


@holds(_VLLM, "`data: [DONE]` ends it.")
def done(service: Service) -> bool:
    return service.stream().is_done


@holds(_VLLM, "All chunks have one id, one model and the time it was made.")
def one_id(service: Service) -> bool:
    return len({(event["id"], event["model"], event["created"]) for event in service.stream().events}) == 1


@holds(_VLLM, "With `include_usage` of false no chunk has usage.")
def usage_not_wanted(service: Service) -> bool:
    events = service.stream(stream_options={"include_usage": False}).events
    return all(event.get("usage") is None for event in events)


@holds("vLLM test_usage_policy", "Without `stream_options` no chunk has usage.")
def usage_not_asked_for(service: Service) -> bool:
    return all(event.get("usage") is None for event in service.stream().events)


@holds(_VLLM, "With `include_usage` one chunk more, without choices, has it, and the others have null.")
def usage_at_the_end(service: Service) -> bool:
    *others, last = service.stream(stream_options={"include_usage": True}).events
    usage = last["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
    return last["choices"] == [] and all(event["usage"] is None for event in others)


@holds(_VLLM, "The usage of a stream is that of the whole answer.")
def usage_is_the_same(service: Service) -> bool:
    last = service.stream(stream_options={"include_usage": True}).events[-1]["usage"]
    whole = service.chat().usage
    return all(last[name] == whole[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens"))


@holds(_VLLM, "With `continuous_usage_stats` each chunk has the usage so far, which never falls and ends at the whole.")
def usage_so_far(service: Service) -> bool:
    options = {"include_usage": True, "continuous_usage_stats": True}
    usages = [event["usage"] for event in service.stream(max_tokens=10, min_tokens=10, stream_options=options).events]
    counts = [usage["completion_tokens"] for usage in usages]
    assert all(usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] for usage in usages)
    return counts == sorted(counts) and counts[-1] == 10


@holds("vLLM test_completion", "`continuous_usage_stats` without `include_usage` asks for nothing.")
def usage_so_far_without_usage(service: Service) -> bool:
    options = {"include_usage": False, "continuous_usage_stats": True}
    return all(event.get("usage") is None for event in service.stream(stream_options=options).events)


@holds("vLLM test_completion", "`stream_options` of {} ask for nothing.")
def no_options(service: Service) -> bool:
    return all(event.get("usage") is None for event in service.stream(stream_options={}).events)


@holds(_VLLM, "`n` answers are streamed side by side, each chunk with its index.")
def several(service: Service) -> bool:
    reply = service.stream(n=2, temperature=1, max_tokens=12, seed=5)
    whole = service.chat(n=2, temperature=1, max_tokens=12, seed=5).body["choices"]
    return [reply.streamed(index) for index in (0, 1)] == [choice["message"]["content"] for choice in whole]


@holds(_VLLM, "Each of them has one `finish_reason`.")
def several_finishes(service: Service) -> bool:
    choices = service.stream(n=3, temperature=1, max_tokens=12).choices
    return sorted(choice["index"] for choice in choices if choice["finish_reason"]) == [0, 1, 2]


@holds(
    "vLLM test_chat_error", "A failure in the middle is an event with an `error`, and `[DONE]` still ends the stream."
)
def failure_in_the_middle(service: Service) -> bool:
    reply = service.saying("A red circle.", fails=True).stream()
    return reply.is_done and any("error" in event for event in reply.events)


@holds("vLLM test_chat_error", "The failure of a whole answer is a 5xx that tells nothing of the inside.")
def failure_of_a_whole_answer(service: Service) -> bool:
    reply = service.saying("", fails=True).chat()
    return reply.status >= 500 and "Traceback" not in reply.text and ".py" not in reply.text


@holds(_LLAMA, "`logprobs` are streamed, those of the whole answer.")
def streamed_logprobs(service: Service) -> bool:
    choices = service.stream(logprobs=True, top_logprobs=3).choices
    told = [token["token"] for choice in choices if choice["logprobs"] for token in choice["logprobs"]["content"]]
    whole = service.chat(logprobs=True, top_logprobs=3).choice["logprobs"]["content"]
    return told == [token["token"] for token in whole]


@holds(_LLAMA, "Until the end each chunk's `finish_reason` is null.")
def null_until_the_end(service: Service) -> bool:
    return all("finish_reason" in choice for choice in service.stream().choices)


@holds("llama.cpp test_completion", "A stop string ends a stream as it ends a whole answer.")
def stop_in_a_stream(service: Service) -> bool:
    word = service.chat(max_tokens=16).content.split()[1]
    reply = service.stream(max_tokens=16, stop=word)
    return reply.streamed() == service.chat(max_tokens=16, stop=word).content and word not in reply.streamed()


@holds("llama.cpp test_completion", "An emoji of several tokens comes whole, never as U+FFFD.")
def whole_characters(service: Service) -> bool:
    reply = service.saying("I love cats 🐱 and 龍.").stream()
    assert all("\ufffd" not in (choice["delta"].get("content") or "") for choice in reply.choices)
    return reply.streamed() == "I love cats 🐱 and 龍."


@holds("llama.cpp test_stream", "A response of type text/event-stream, which proxies are told not to keep.")
def headers(service: Service) -> bool:
    reply = service.stream()
    kept = {name.lower(): value for name, value in reply.headers.items()}
    return kept["content-type"].startswith("text/event-stream") and kept["cache-control"] == "no-store"


BEHAVIOURS: list[Behaviour] = [
    *behaviours_of(globals()),
    refused(
        _VLLM,
        "`stream_options` without `stream` are refused.",
        CHAT,
        _asked(stream_options={"include_usage": True}),
        "stream_options",
    ),
    refused(
        _VLLM,
        "So they are with `include_usage` of null.",
        CHAT,
        _asked(stream=False, stream_options={"include_usage": None}),
        "stream_options",
    ),
]
