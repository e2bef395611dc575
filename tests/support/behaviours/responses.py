"""OpenAI's responses: items, events, tools, shapes, thoughts, and what is not kept."""

from __future__ import annotations

import json
from typing import Any

from behaviours.asking import CALL, PICTURE_URL, RESPONSES, SHAPE, Service
from behaviours.listed import Behaviour, behaviours_of, holds

_SIMPLE = "vLLM test_simple"
_BASIC = "vLLM test_basic (responses)"
_CALLS = "vLLM test_function_call"
_CHECKED = "vLLM test_responses_request_validations"
_SAMPLED = "vLLM test_sampling_params (responses)"
_STATE = "vLLM test_serving_stateless"
_IMAGE = "vLLM test_image"
_LLAMA = "llama.cpp test_compat_oai_responses"
TOOL = {"type": "function", "name": "shape", "description": "Notes a shape.", "parameters": SHAPE}
NAMED = {"type": "function", "name": "shape"}
FORMAT = {"type": "json_schema", "name": "shape", "schema": SHAPE, "strict": True}
_THOUGHT = "<think>It is round.</think>A circle."
_PAIRS = {
    "response.output_item.done": "response.output_item.added",
    "response.content_part.done": "response.content_part.added",
    "response.output_text.done": "response.output_text.delta",
    "response.reasoning_text.done": "response.reasoning_text.delta",
    "response.reasoning_part.done": "response.reasoning_part.added",
    "response.function_call_arguments.done": "response.function_call_arguments.delta",
}


def _asked(**fields: Any) -> dict[str, Any]:
    return {"input": "Who are you?", "max_output_tokens": 8, **fields}


def said(role: str, text: str, **more: Any) -> dict[str, Any]:
    """An item of a conversation."""
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}], **more}


def _text(body: Any) -> str:
    parts = [part for item in body["output"] if item["type"] == "message" for part in item["content"]]
    return "".join(part["text"] for part in parts)


def _call(body: Any) -> Any:
    return next(item for item in body["output"] if item["type"] == "function_call")


def _is_well_nested(events: list[Any]) -> bool:
    """Whether every part that was begun has ended, the last one first."""
    open_ones: list[str] = []
    for event in events:
        kind = event["type"]
        if kind in _PAIRS:
            if open_ones[-1] != _PAIRS[kind]:
                return False
            open_ones.pop()
        elif kind.endswith(("added", "delta")) and kind in _PAIRS.values() and open_ones[-1:] != [kind]:
            open_ones.append(kind)
    return not open_ones


@holds(_SIMPLE, "A text is answered: `status` of `completed`, no `incomplete_details`, a message.")
def completed(service: Service) -> bool:
    body = service.saying("A circle.").respond().body
    return body["status"] == "completed" and body["incomplete_details"] is None and _text(body) == "A circle."


@holds(_SIMPLE, "Cut at `max_output_tokens`, it is `incomplete` and says why.")
def incomplete(service: Service) -> bool:
    body = service.respond(max_output_tokens=4, ignore_eos=True).body
    return body["status"] == "incomplete" and body["incomplete_details"]["reason"] == "max_output_tokens"


@holds(_SIMPLE, "Thoughts are an item of type `reasoning` before the message.")
def thoughts(service: Service) -> bool:
    first, second = service.saying(_THOUGHT).respond(reasoning={"effort": "low"}).body["output"]
    return (
        first["type"] == "reasoning" and first["content"][0]["text"] == "It is round." and second["type"] == "message"
    )


@holds(_SIMPLE, "`usage.output_tokens_details.reasoning_tokens` counts them.")
def counted_thoughts(service: Service) -> bool:
    usage = service.saying(_THOUGHT).respond(reasoning={"effort": "low"}).usage
    return usage["output_tokens_details"]["reasoning_tokens"] > 0


@holds(_SIMPLE, "So it does at the end of a stream.")
def counted_thoughts_streamed(service: Service) -> bool:
    last = service.saying(_THOUGHT).respond(reasoning={"effort": "low"}, stream=True).events[-1]
    return last["response"]["usage"]["output_tokens_details"]["reasoning_tokens"] > 0


@holds(_SIMPLE, "The deltas of a stream are the text of its last event.")
def streamed(service: Service) -> bool:
    reply = service.saying("A red circle.").respond(stream=True)
    deltas = "".join(event["delta"] for event in reply.of_type("response.output_text.delta"))
    assert reply.events[-1]["type"] == "response.completed"
    return deltas == _text(reply.events[-1]["response"]) == "A red circle."


@holds(_SIMPLE, "`include` of logprobs with `top_logprobs` tells them on each delta.")
def streamed_logprobs(service: Service) -> bool:
    fields = {"top_logprobs": 3, "include": ["message.output_text.logprobs"]}
    deltas = service.respond(stream=True, **fields).of_type("response.output_text.delta")
    told = [each for event in deltas for each in event["logprobs"]]
    return bool(told) and all(each["logprob"] <= 0 and len(each["top_logprobs"]) <= 3 for each in told)


@holds(_SIMPLE, "Every item and part of a stream that begins also ends, the last one first.")
def nested(service: Service) -> bool:
    told = service.saying(_THOUGHT)
    return _is_well_nested(told.respond(reasoning={"effort": "low"}, stream=True, tools=[], background=False).events)


@holds(_SIMPLE, "An earlier answer of items with ids and status may be sent back.")
def history(service: Service) -> bool:
    thought = {"type": "reasoning", "summary": [], "encrypted_content": None, "id": "rs_1", "status": "completed"}
    answer = said("assistant", "Round.", id="msg_1", status="completed")
    return service.respond([said("user", "A circle?"), answer, thought, said("user", "Sure?")]).status == 200


@holds(_SIMPLE, "So it may without ids.")
def history_without_ids(service: Service) -> bool:
    thought = {"type": "reasoning", "summary": [], "encrypted_content": None}
    return service.respond([said("user", "A?"), said("assistant", "B."), thought, said("user", "C?")]).status == 200


@holds(_SIMPLE, "A reasoning item with its text may be the last one.")
def thought_last(service: Service) -> bool:
    thought = {"type": "reasoning", "id": "a", "summary": [], "content": [{"type": "reasoning_text", "text": "Greet."}]}
    return service.respond([{"type": "message", "content": "Hello.", "role": "user"}, thought]).status == 200


@holds(_BASIC, "A message of the assistant may be the last one.")
def assistant_last(service: Service) -> bool:
    return service.respond([said("user", "A circle?"), said("assistant", "It is")]).status == 200


@holds(_BASIC, "`instructions` are a system text before all others.")
def instructions(service: Service) -> bool:
    system = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who are you?"}]
    one, other = service.respond(instructions="Be brief."), service.respond(system)
    return one.usage["input_tokens"] == other.usage["input_tokens"] and one.status == 200


@holds("vLLM test_protocol (responses)", "A message of role `developer` is a system text.")
def developer(service: Service) -> bool:
    asked = [{"role": role, "content": "Be brief."} for role in ("developer", "system")]
    return len({service.respond([each, said("user", "Hi")]).usage["input_tokens"] for each in asked}) == 1


@holds(_BASIC, "`top_logprobs` of 5 tells five in each place.")
def logprobs(service: Service) -> bool:
    body = service.respond(include=["message.output_text.logprobs"], top_logprobs=5).body
    return len(body["output"][-1]["content"][-1]["logprobs"][0]["top_logprobs"]) == 5


@holds(_BASIC, "A stream begins with `response.created`, and each event has the next sequence number.")
def numbered(service: Service) -> bool:
    events = service.respond(stream=True).events
    return events[0]["type"] == "response.created" and [e["sequence_number"] for e in events] == list(
        range(len(events))
    )


@holds(_CALLS, "`tool_choice` of `required` makes a call whose arguments fit.")
def required(service: Service) -> bool:
    body = service.respond(tools=[TOOL], tool_choice="required", max_output_tokens=128).body
    return set(json.loads(_call(body)["arguments"])) == {"colour", "count"}


@holds(_CALLS, "A named function is called, and its result is answered.")
def named(service: Service) -> bool:
    body = service.respond(tools=[TOOL], tool_choice=NAMED, max_output_tokens=128).body
    call = _call(body)
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "noted"}
    return call["name"] == "shape" and service.respond([said("user", "A?"), call, result]).status == 200


@holds(_CALLS, "`max_output_tokens` too small for a call makes none, and says why.")
def cut_call(service: Service) -> bool:
    body = service.respond(tools=[TOOL], tool_choice="required", max_output_tokens=2).body
    assert body["incomplete_details"]["reason"] == "max_output_tokens"
    return all(item["type"] != "function_call" for item in body["output"])


@holds(_CALLS, "The deltas of a streamed call's arguments are the arguments of the item at its end.")
def streamed_call(service: Service) -> bool:
    reply = service.saying(CALL).respond(tools=[TOOL], stream=True)
    deltas = "".join(event["delta"] for event in reply.of_type("response.function_call_arguments.delta"))
    done = next(e["item"] for e in reply.of_type("response.output_item.done") if e["item"]["type"] == "function_call")
    return deltas == done["arguments"] and done["name"] == "shape"


@holds(_CALLS, "Its events are well nested, too.")
def nested_call(service: Service) -> bool:
    return _is_well_nested(service.saying(CALL).respond(tools=[TOOL], stream=True).events)


@holds("vLLM test_streaming_events", "Thoughts, text and calls of one answer are streamed one after another.")
def all_three(service: Service) -> bool:
    reply = service.saying(f"<think>Hm.</think>I note it. {CALL}").respond(
        tools=[TOOL], reasoning={"effort": "low"}, stream=True
    )
    kinds = [event["type"] for event in reply.events]
    wanted = ["response.reasoning_text.delta", "response.output_text.delta", "response.function_call_arguments.delta"]
    places = [kinds.index(kind) for kind in wanted]
    return places == sorted(places)


@holds("vLLM test_streaming_events", "Two calls are two items.")
def two_calls(service: Service) -> bool:
    reply = service.saying(f"{CALL}\n{CALL}").respond(tools=[TOOL], stream=True)
    return (
        len(reply.of_type("response.output_item.added"))
        == 2
        == len(reply.of_type("response.function_call_arguments.done"))
    )


@holds("vLLM test_structured_output", "`text.format` of a schema answers with what it allows.")
def shape(service: Service) -> bool:
    body = service.respond(text={"format": FORMAT}, max_output_tokens=128).body
    return set(json.loads(_text(body))) == {"colour", "count"}


@holds(_SAMPLED, "`structured_outputs` do the same as on the chat route.")
def structured(service: Service) -> bool:
    return _text(service.respond(structured_outputs={"choice": ["yes", "no"]}).body) in ("yes", "no")


@holds(_SAMPLED, "`stop` as a string is the same as a list of it.")
def stop(service: Service) -> bool:
    word = _text(service.respond(max_output_tokens=16).body).split()[1]
    one, many = (service.respond(max_output_tokens=16, stop=each).body for each in (word, [word]))
    return _text(one) == _text(many) and word not in _text(one)


@holds(
    "vLLM test_chat_template_kwargs",
    "`chat_template_kwargs.enable_thinking` switches thinking on, whatever `reasoning` says.",
)
def template_switch(service: Service) -> bool:
    fields = {"reasoning": {"effort": "none"}, "chat_template_kwargs": {"enable_thinking": True}}
    return (
        service.respond(**fields).usage["input_tokens"]
        == service.respond(reasoning={"effort": "low"}).usage["input_tokens"]
    )


@holds("vLLM test_count_tokens", "`POST /v1/responses/input_tokens` counts the tokens of an input.")
def count(service: Service) -> bool:
    counted = service.post(f"{RESPONSES}/input_tokens", {"input": "Who are you?"}).body
    return (
        counted["object"] == "response.input_tokens"
        and counted["input_tokens"] == service.respond().usage["input_tokens"]
    )


@holds(_STATE, "An answer that is not kept is not found: never a 5xx.")
def not_kept(service: Service) -> bool:
    return 400 <= service.get(f"{RESPONSES}/resp_123").status < 500


@holds(_STATE, "So it is to cancel one.")
def not_cancelled(service: Service) -> bool:
    return 400 <= service.post(f"{RESPONSES}/resp_123/cancel", {}).status < 500


@holds(_CHECKED, "`parallel_tool_calls` of null is true in the answer.")
def parallel_null(service: Service) -> bool:
    return service.respond(parallel_tool_calls=None).body["parallel_tool_calls"] is True


@holds(_CHECKED, "`tool_choice` of `none` makes no call.")
def no_call(service: Service) -> bool:
    body = service.respond(tools=[TOOL], tool_choice="none").body
    return all(item["type"] != "function_call" for item in body["output"])


@holds(_IMAGE, "An image as `input_image` is described.")
def image(service: Service) -> bool:
    parts = [
        {"type": "input_image", "image_url": PICTURE_URL, "detail": "auto"},
        {"type": "input_text", "text": "What is it?"},
    ]
    return len(_text(service.respond([{"role": "user", "content": parts}]).body)) > 0


@holds(_IMAGE, "Two images are answered.")
def two_images(service: Service) -> bool:
    one = {"type": "input_image", "image_url": PICTURE_URL}
    return (
        service.respond([{"role": "user", "content": [one, one, {"type": "input_text", "text": "What?"}]}]).status
        == 200
    )


@holds(_IMAGE, "More than are allowed are a 400, and the next request is answered.")
def too_many_images(service: Service) -> bool:
    one = {"type": "input_image", "image_url": PICTURE_URL}
    asked = [{"role": "user", "content": [*[one] * 40, {"type": "input_text", "text": "What?"}]}]
    return service.respond(asked).status == 400 and service.respond().status == 200


@holds(_LLAMA, "Ids begin with `resp_` and `msg_`, and those of a stream's events agree.")
def ids(service: Service) -> bool:
    reply = service.respond(stream=True)
    added = reply.of_type("response.output_item.added")[0]["item"]["id"]
    deltas = {event["item_id"] for event in reply.of_type("response.output_text.delta")}
    assert reply.events[0]["response"]["id"].startswith("resp_") and added.startswith("msg_")
    return deltas == {added} and reply.events[-1]["response"]["output"][0]["id"] == added


@holds(_SIMPLE, "`enable_response_messages` shows prompt and answer as text and ids.")
def response_messages(service: Service) -> bool:
    body, plain = service.respond(enable_response_messages=True).body, service.respond().body
    (prompt,), (answer,) = body["input_messages"], body["output_messages"]
    assert "input_messages" not in plain and prompt["type"] == answer["type"] == "raw_message_tokens"
    assert "Who are you?" in prompt["message"] and len(prompt["tokens"]) == body["usage"]["input_tokens"]
    last = service.respond(enable_response_messages=True, stream=True).events[-1]["response"]
    return last["input_messages"] == [prompt] and len(answer["tokens"]) == body["usage"]["output_tokens"]


@holds(_LLAMA, "`/responses` answers without `/v1`.")
def without_version(service: Service) -> bool:
    return service.post("/responses", _asked()).status == 200


@holds(_LLAMA, "`text.format` of a schema of `const` answers with it.")
def constant(service: Service) -> bool:
    wanted = {"type": "json_schema", "name": "test", "schema": {"const": "foooooo"}}
    return _text(service.respond(text={"format": wanted}, max_output_tokens=32).body) == '"foooooo"'


BEHAVIOURS: list[Behaviour] = behaviours_of(globals())
