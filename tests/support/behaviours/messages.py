"""Anthropic's messages: answers, blocks, tools, thinking, events and counts."""

from __future__ import annotations

from typing import Any

from behaviours.asking import ASKED, CALL, MESSAGES, PICTURE, SHAPE, Service
from behaviours.listed import Behaviour, behaviours_of, holds

_CONVERTED = "vLLM test_anthropic_messages_conversion"
_LLAMA = "llama.cpp test_compat_anthropic"
_TOOL = {"name": "shape", "description": "Notes a shape.", "input_schema": SHAPE}
_SOURCE = {"type": "base64", "media_type": "image/png", "data": PICTURE}
USE = {"type": "tool_use", "id": "toolu_1", "name": "shape", "input": {"colour": "red", "count": 2}}
_THOUGHT = "<think>It is round.</think>A circle."
_BILLING = "x-anthropic-billing-header: cc_version=2.1.37.abc; cc_entrypoint=cli;"


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def after_a_call(result: dict[str, Any], *more: Any) -> list[Any]:
    return [
        *ASKED,
        {"role": "assistant", "content": [USE]},
        user({"type": "tool_result", "tool_use_id": "toolu_1", **result}, *more),
    ]


def _count(service: Service, messages: Any, **more: Any) -> int:
    reply = service.post(f"{MESSAGES}/count_tokens", {"messages": messages, **more})
    assert reply.status == 200, reply.text
    return int(reply.body["input_tokens"])


@holds(_LLAMA, "An answer is a message of blocks with `stop_reason` and `usage`, and without fields of other APIs.")
def message(service: Service) -> bool:
    body = service.message().body
    assert body["type"] == "message" and body["role"] == "assistant" and body["content"][0]["type"] == "text"
    assert body["stop_reason"] in ("end_turn", "max_tokens") and "timings" not in body and "choices" not in body
    return all(
        isinstance(body["usage"][name], int) for name in ("input_tokens", "output_tokens", "cache_read_input_tokens")
    )


@holds(_LLAMA, "A stream has the events of a message in their order, the first without content.")
def events(service: Service) -> bool:
    kinds = [event["type"] for event in service.message(stream=True).events]
    wanted = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    places = [kinds.index(kind) for kind in wanted]
    return places == sorted(places)


@holds(_LLAMA, "`message_start` has the message with its type, role and `input_tokens`.")
def start(service: Service) -> bool:
    begun = service.message(stream=True).events[0]["message"]
    assert begun["type"] == "message" and begun["role"] == "assistant" and begun["content"] == []
    return begun["usage"]["input_tokens"] > 0


@holds(_LLAMA, "Deltas are of their block: index, and `text_delta`.")
def deltas(service: Service) -> bool:
    found = service.message(stream=True).of_type("content_block_delta")
    return all(each["index"] == 0 and each["delta"]["type"] == "text_delta" for each in found) and bool(found)


@holds(_LLAMA, "`message_delta` has `stop_reason`, `stop_sequence` and the tokens of the answer.")
def ending(service: Service) -> bool:
    (last,) = service.message(stream=True).of_type("message_delta")
    return (
        last["delta"]["stop_reason"] in ("end_turn", "max_tokens")
        and "stop_sequence" in last["delta"]
        and last["usage"]["output_tokens"] > 0
    )


@holds(_LLAMA, "Blocks are numbered one after another, and each that begins also ends.")
def indices(service: Service) -> bool:
    reply = service.saying(f"I note it. {CALL}\n{CALL}").message(stream=True, tools=[_TOOL])
    begun = [event["index"] for event in reply.of_type("content_block_start")]
    return begun == [0, 1, 2] == [event["index"] for event in reply.of_type("content_block_stop")]


@holds(_LLAMA, "`count_tokens` needs no `max_tokens` and tells `input_tokens` alone, those of the answer's usage.")
def count(service: Service) -> bool:
    reply = service.post(f"{MESSAGES}/count_tokens", {"messages": ASKED})
    assert set(reply.body) == {"input_tokens"}
    usage = service.message().usage
    return bool(reply.body["input_tokens"] == usage["input_tokens"] + usage["cache_read_input_tokens"])


@holds(_LLAMA, "A system text counts.")
def counted_system(service: Service) -> bool:
    return _count(service, ASKED, system="You are helpful.") > _count(service, ASKED)


@holds(_LLAMA, "A call is a block of `tool_use` with id, name and input, and `stop_reason` is `tool_use`.")
def call(service: Service) -> bool:
    body = service.saying(CALL).message(tools=[_TOOL]).body
    (block,) = body["content"]
    assert body["stop_reason"] == "tool_use" and block["id"]
    return block["type"] == "tool_use" and block["name"] == "shape" and block["input"] == {"colour": "red", "count": 2}


@holds(_LLAMA, "So it is in a stream, with its input as `input_json_delta`.")
def streamed_call(service: Service) -> bool:
    reply = service.saying(CALL).message(stream=True, tools=[_TOOL])
    begun = reply.of_type("content_block_start")[0]["content_block"]
    kinds = {event["delta"]["type"] for event in reply.of_type("content_block_delta")}
    return begun["type"] == "tool_use" and begun["name"] == "shape" and kinds == {"input_json_delta"}


@holds(_LLAMA, "Thinking is a block with `thinking` and `signature` before the text.")
def thinking(service: Service) -> bool:
    first, second = (
        service.saying(_THOUGHT)
        .message(thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2048)
        .body["content"]
    )
    return (
        first["type"] == "thinking"
        and first["thinking"] == "It is round."
        and first["signature"]
        and second["type"] == "text"
    )


@holds(_LLAMA, "So it is in a stream, with `thinking_delta`, and `signature_delta` before it ends.")
def streamed_thinking(service: Service) -> bool:
    told = service.saying(_THOUGHT)
    reply = told.message(stream=True, thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2048)
    kinds = [event["delta"]["type"] for event in reply.of_type("content_block_delta")]
    return kinds[0] == "thinking_delta" and "signature_delta" in kinds and kinds[-1] == "text_delta"


@holds(_LLAMA, "An image in base64 is described.")
def image(service: Service) -> bool:
    body = service.message([user({"type": "image", "source": _SOURCE}, text("What is it?"))]).body
    return bool(body["content"][0]["text"])


@holds(_LLAMA, "Requests without `messages` are refused in Anthropic's shape.")
def refusal(service: Service) -> bool:
    reply = service.post(MESSAGES, {"max_tokens": 5})
    return reply.status == 400 and reply.body["type"] == "error" and reply.error["type"] == "invalid_request_error"


@holds(_CONVERTED, "A stop string is told: `stop_reason` of `stop_sequence`, and which one.")
def stop_sequence(service: Service) -> bool:
    body = service.saying("A circle. END of it").message(stop_sequences=["END"]).body
    return (
        body["stop_reason"] == "stop_sequence"
        and body["stop_sequence"] == "END"
        and "END" not in body["content"][0]["text"]
    )


@holds(_CONVERTED, "So it is at the end of a stream.")
def streamed_stop_sequence(service: Service) -> bool:
    reply = service.saying("A circle. END of it").message(stop_sequences=["END"], stream=True)
    delta = reply.of_type("message_delta")[0]["delta"]
    return delta == {"stop_reason": "stop_sequence", "stop_sequence": "END"}


@holds(_CONVERTED, "The model's own end is `end_turn`, with `stop_sequence` of null.")
def end_turn(service: Service) -> bool:
    body = service.saying("A circle.").message().body
    return body["stop_reason"] == "end_turn" and body["stop_sequence"] is None


@holds(_CONVERTED, "An answer that says nothing has one empty text block.")
def empty(service: Service) -> bool:
    return bool(service.saying("").message().body["content"] == [{"type": "text", "text": ""}])


@holds(_CONVERTED, "A result of a tool as text is that of one text block.")
def result_text(service: Service) -> bool:
    return service.message(after_a_call({"content": "noted"})).status == 200


@holds(_CONVERTED, "A result of several text blocks is answered.")
def result_blocks(service: Service) -> bool:
    return service.message(after_a_call({"content": [text("line 1"), text("line 2")]})).status == 200


@holds(_CONVERTED, "A result that is an image is seen.")
def result_image(service: Service) -> bool:
    with_image = _count(service, after_a_call({"content": [{"type": "image", "source": _SOURCE}]}))
    return with_image > _count(service, after_a_call({"content": [text("x")]})) + 4


@holds(_CONVERTED, "A result of text and an image is both.")
def result_both(service: Service) -> bool:
    return (
        service.message(after_a_call({"content": [text("Here it is"), {"type": "image", "source": _SOURCE}]})).status
        == 200
    )


@holds(_CONVERTED, "A result without content is an empty one.")
def result_empty(service: Service) -> bool:
    return service.message(after_a_call({"content": None})).status == 200


@holds(_CONVERTED, "A system block of an agent's billing header is left out.")
def billing(service: Service) -> bool:
    plain = [text("You are helpful.")]
    return _count(service, ASKED, system=[*plain, text(_BILLING)]) == _count(service, ASKED, system=plain)


@holds(_CONVERTED, "So is a system message of it among the messages.")
def billing_inline(service: Service) -> bool:
    talk = [*ASKED, {"role": "system", "content": _BILLING}, {"role": "user", "content": "Go on."}]
    return _count(service, talk) == _count(service, [talk[0], talk[2]])


@holds(_CONVERTED, "A system message keeps its place among the others.")
def system_in_place(service: Service) -> bool:
    after = [*ASKED, {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Go on."}]
    return service.message(after).status == 200 and _count(service, after) > _count(service, [after[0], after[2]])


@holds(_CONVERTED, "It may be the last one.")
def system_last(service: Service) -> bool:
    return service.message([*ASKED, {"role": "system", "content": "Be concise."}]).status == 200


@holds(_CONVERTED, "A turn of thinking and text may be sent back.")
def thinking_back(service: Service) -> bool:
    said = {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": "a"}, text("Sure.")]}
    return service.message([*ASKED, said, {"role": "user", "content": "Fix it?"}]).status == 200


@holds(_CONVERTED, "Several blocks of thinking are joined.")
def several_thoughts(service: Service) -> bool:
    def talk(*thoughts: str) -> list[Any]:
        said = [{"type": "thinking", "thinking": each, "signature": "a"} for each in thoughts]
        return [
            *ASKED,
            {"role": "assistant", "content": [*said, USE]},
            user({"type": "tool_result", "tool_use_id": "toolu_1", "content": "4"}),
        ]

    return _count(service, talk("First. ", "Second.")) == _count(service, talk("First. Second."))


@holds(_CONVERTED, "`usage` counts what was kept of earlier prompts apart from `input_tokens`.")
def cache(service: Service) -> bool:
    asked = [{"role": "user", "content": "Tell me of crosses and of stars. " * 8}]
    service.message(asked)
    usage = service.message(asked).usage
    return usage["cache_read_input_tokens"] > 0 and usage["input_tokens"] + usage["cache_read_input_tokens"] == _count(
        service, asked
    )


@holds(_CONVERTED, "Text after a call is a block of its own, and no argument is lost.")
def text_after_a_call(service: Service) -> bool:
    reply = service.saying(f"{CALL}\nOkay").message(stream=True, tools=[_TOOL])
    json_parts = [
        e["delta"]["partial_json"] for e in reply.of_type("content_block_delta") if "partial_json" in e["delta"]
    ]
    kinds = [event["content_block"]["type"] for event in reply.of_type("content_block_start")]
    assert reply.events[-1]["type"] == "message_stop" and kinds == ["tool_use", "text"]
    return "".join(json_parts) == '{"colour": "red", "count": 2}'


@holds("vLLM test_stream_error", "A failure in a stream is an event of type `error`.")
def streamed_failure(service: Service) -> bool:
    return bool(service.saying("A circle.", fails=True).message(stream=True).of_type("error"))


@holds(_CONVERTED, "`thinking` of `disabled` switches it off, whatever `output_config.effort` says.")
def thinking_off(service: Service) -> bool:
    off = _count(service, ASKED, thinking={"type": "disabled"})
    return off == _count(service, ASKED, thinking={"type": "disabled"}, output_config={"effort": "high"})


BEHAVIOURS: list[Behaviour] = behaviours_of(globals())
