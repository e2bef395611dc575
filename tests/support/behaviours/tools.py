"""Tools: choices, calls, their arguments, results, and what is refused."""

from __future__ import annotations

import json
from typing import Any

from behaviours.asking import ASKED, CALL, CHAT, OTHER_TOOL, SHAPE, TOOL, Service
from behaviours.listed import Behaviour, answered, behaviours_of, holds, refused

_CALLING = "vLLM test_completion_with_function_calling"
_CHECKED = "vLLM test_chat_completion_request_validations"
_NULL = "vLLM test_tool_choice_null"
_GLM = "vLLM test_glm4_moe_tool_parser"
_CALLS = "vLLM test_tool_calls"
_LLAMA = "llama.cpp test_tool_call"
_NAMED = {"type": "function", "function": {"name": "shape"}}
_NONE = {
    "type": "function",
    "function": {"name": "now", "parameters": {"type": "object", "properties": {}, "required": []}},
}
_CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "shape", "arguments": '{"colour": "red", "count": 2}'},
        }
    ],
}
_RESULT = {"role": "tool", "tool_call_id": "call_1", "name": "shape", "content": "noted"}


def _asked(**fields: Any) -> dict[str, Any]:
    return {"messages": ASKED, "max_tokens": 64, **fields}


def _fits(call: Any) -> bool:
    arguments = json.loads(call["function"]["arguments"])
    return set(arguments) == {"colour", "count"} and arguments["colour"] in SHAPE["properties"]["colour"]["enum"]


def _calls(service: Service, **fields: Any) -> list[Any]:
    return list(service.chat(tools=[TOOL, OTHER_TOOL], max_tokens=128, **fields).choice["message"]["tool_calls"])


def _streamed_calls(service: Service, **fields: Any) -> list[Any]:
    choices = service.stream(tools=[TOOL, OTHER_TOOL], max_tokens=128, **fields).choices
    return [call for choice in choices for call in choice["delta"].get("tool_calls", ())]


@holds(_CALLING, "`tool_choice` of `required` makes a call whose arguments fit its schema.")
def required(service: Service) -> bool:
    calls = _calls(service, tool_choice="required")
    return bool(calls) and all(call["function"]["name"] in ("shape", "search") for call in calls)


@holds(_CALLING, "So it does in a stream.")
def required_streamed(service: Service) -> bool:
    return bool(_streamed_calls(service, tool_choice="required"))


@holds(_CALLING, "A named function is called, with arguments that fit.")
def named(service: Service) -> bool:
    (call,) = _calls(service, tool_choice=_NAMED)
    return call["function"]["name"] == "shape" and _fits(call)


@holds(_CALLING, "So it is in a stream, whose deltas have no content.")
def named_streamed(service: Service) -> bool:
    choices = service.stream(tools=[TOOL], max_tokens=128, tool_choice=_NAMED).choices
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls", ())]
    assert not any(choice["delta"].get("content") for choice in choices)
    return len(calls) == 1 and _fits(calls[0]) and sum(bool(c["finish_reason"]) for c in choices) == 1


@holds(_CALLING, "A function without parameters is called with {}.")
def no_arguments(service: Service) -> bool:
    message = service.chat(tools=[_NONE], tool_choice="required", parallel_tool_calls=False, max_tokens=64).choice[
        "message"
    ]
    return message["tool_calls"][0]["function"]["arguments"] == "{}"


@holds(_CALLING, "Thoughts come before a call that is asked for.")
def thoughts_before_a_call(service: Service) -> bool:
    told = service.saying(f"<think>A shape is asked for.</think>{CALL}")
    message = told.chat(tools=[TOOL], thinking=True, max_tokens=64).choice["message"]
    return message["reasoning"] == "A shape is asked for." and _fits(message["tool_calls"][0])


@holds(_CALLING, "`max_tokens` too small for a call ends it with `length`, without a call.")
def cut_call(service: Service) -> bool:
    choice = service.chat(tools=[TOOL], tool_choice="required", max_tokens=1).choice
    return choice["finish_reason"] == "length" and not choice["message"].get("tool_calls")


@holds(_CALLING, "So it does for a named function.")
def cut_named_call(service: Service) -> bool:
    choice = service.chat(tools=[TOOL], tool_choice=_NAMED, max_tokens=1).choice
    return choice["finish_reason"] == "length" and not choice["message"].get("tool_calls")


@holds(_CALLING, "A schema with `$defs` and `$ref` is followed.")
def references(service: Service) -> bool:
    options = {
        "type": "object",
        "additionalProperties": False,
        "properties": {"language": {"enum": ["zh-CN", "en-US"]}},
        "required": ["language"],
    }
    parameters = {
        "type": "object",
        "properties": {"options": {"$ref": "#/$defs/Options"}},
        "required": ["options"],
        "$defs": {"Options": options},
    }
    tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    message = service.chat(tools=[tool], tool_choice="required", parallel_tool_calls=False, max_tokens=96).choice[
        "message"
    ]
    return json.loads(message["tool_calls"][0]["function"]["arguments"])["options"]["language"] in ("zh-CN", "en-US")


@holds(
    _CALLS,
    "A call has an id of 9 characters at least, a type, a name and arguments as JSON text.",
)
def whole_call(service: Service) -> bool:
    choice = service.saying(CALL).chat(tools=[TOOL, OTHER_TOOL]).choice
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls" and call["type"] == "function" and len(call["id"]) >= 9
    return _fits(call)


@holds(_CALLS, "A stream tells name and id of a call once, and its arguments are those of the whole answer.")
def streamed_call(service: Service) -> bool:
    choices = service.saying(CALL).stream(tools=[TOOL]).choices
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls", ())]
    assert len([call for call in calls if call.get("id")]) == 1 and choices[-1]["finish_reason"] == "tool_calls"
    return _fits({"function": {"arguments": "".join(call["function"]["arguments"] for call in calls)}})


@holds("vLLM test_parallel_tool_calls", "Two calls come as two, each with an id of its own.")
def two_calls(service: Service) -> bool:
    calls = service.saying(f"{CALL}\n{CALL}").chat(tools=[TOOL]).choice["message"]["tool_calls"]
    return len({call["id"] for call in calls}) == 2 and all(len(call["id"]) > 16 for call in calls)


@holds("vLLM test_parallel_tool_calls", "A stream numbers them by `index`.")
def two_streamed_calls(service: Service) -> bool:
    choices = service.saying(f"{CALL}\n{CALL}").stream(tools=[TOOL]).choices
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls", ())]
    return [call["index"] for call in calls] == [0, 1]


@holds("vLLM test_parallel_tool_calls", "`parallel_tool_calls` of false makes one call at most.")
def one_call(service: Service) -> bool:
    message = service.chat(tools=[TOOL], tool_choice="required", parallel_tool_calls=False, max_tokens=200).choice[
        "message"
    ]
    return len(message["tool_calls"]) == 1


@holds("vLLM test_chat_completions", "Tools that are not called change nothing of the answer's shape.")
def uncalled(service: Service) -> bool:
    told = service.saying("A circle is round.")
    choice = told.chat(tools=[TOOL]).choice
    assert choice["finish_reason"] == "stop" and not choice["message"].get("tool_calls")
    return told.stream(tools=[TOOL]).streamed() == choice["message"]["content"] == "A circle is round."


@holds(_GLM, "Text before a call is content.")
def text_before(service: Service) -> bool:
    message = service.saying(f"I note it. {CALL}").chat(tools=[TOOL]).choice["message"]
    return message["content"] == "I note it." and _fits(message["tool_calls"][0])


@holds(_GLM, "Arguments in Chinese are kept as they are.")
def chinese(service: Service) -> bool:
    call = CALL.replace("red", "红色")
    message = service.saying(call).chat(tools=[TOOL]).choice["message"]
    return json.loads(message["tool_calls"][0]["function"]["arguments"])["colour"] == "红色"


@holds(_GLM, "A call without arguments is one with {}.")
def empty_call(service: Service) -> bool:
    message = service.saying("<tool_call>now\n</tool_call>").chat(tools=[_NONE]).choice["message"]
    return message["tool_calls"][0]["function"]["arguments"] == "{}"


@holds(_GLM, "A call between thoughts and text is read, and the thoughts come apart.")
def call_after_thoughts(service: Service) -> bool:
    told = service.saying(f"<think>Hm.</think>I note it. {CALL}")
    message = told.chat(tools=[TOOL], thinking=True).choice["message"]
    return message["content"] == "I note it." and message["reasoning"] == "Hm." and len(message["tool_calls"]) == 1


@holds(_GLM, "Broken markup fails no request.")
def broken_markup(service: Service) -> bool:
    return (
        service.saying("<tool_call>shape\n<arg_key>colour\n<arg_value>red</arg_value>\n</tool_call>")
        .chat(tools=[TOOL])
        .status
        == 200
    )


@holds(_GLM, "A call that is cut off is none.")
def unended_call(service: Service) -> bool:
    message = service.saying(CALL.removesuffix("</tool_call>")).chat(tools=[TOOL]).choice["message"]
    return not message.get("tool_calls")


@holds(_GLM, "Text arguments stay text, numbers become numbers.")
def typed(service: Service) -> bool:
    arguments = service.saying(CALL).chat(tools=[TOOL]).choice["message"]["tool_calls"][0]["function"]["arguments"]
    return json.loads(arguments) == {"colour": "red", "count": 2}


@holds(_LLAMA, "`tool_choice` of `none` makes no call, and the model is not told of the tools.")
def none(service: Service) -> bool:
    reply = service.chat(tools=[TOOL], tool_choice="none")
    return (
        not reply.choice["message"].get("tool_calls")
        and reply.usage["prompt_tokens"] == service.chat().usage["prompt_tokens"]
    )


@holds(_LLAMA, "A result of a tool is answered, with the tools or without.")
def result(service: Service) -> bool:
    talk = [*ASKED, _CALLED, _RESULT]
    return service.chat(talk).status == 200 == service.chat(talk, tools=[TOOL]).status


@holds(_LLAMA, "`const` of a parameter is what its argument is.")
def constant(service: Service) -> bool:
    parameters = {
        "type": "object",
        "properties": {"success": {"type": "boolean", "const": True}},
        "required": ["success"],
    }
    tool = {"type": "function", "function": {"name": "test", "description": "", "parameters": parameters}}
    message = service.chat(tools=[tool], tool_choice="required", parallel_tool_calls=False, max_tokens=64).choice[
        "message"
    ]
    assert not message.get("content")
    return json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"success": True}


@holds(_NULL, "`tool_choice` of null is an absent one.")
def null_choice(service: Service) -> bool:
    with_null = service.chat(tools=[TOOL], tool_choice=None)
    return with_null.content == service.chat(tools=[TOOL]).content and with_null.status == 200


@holds("vLLM test_return_token_ids", "With tools, `return_token_ids` tells the prompt's ids, in which the tools are.")
def ids_with_tools(service: Service) -> bool:
    ids = service.chat(tools=[TOOL], return_token_ids=True).body["prompt_token_ids"]
    return "Notes a shape." in service.post("/v1/detokenize", {"tokens": ids}).body["prompt"]


BEHAVIOURS: list[Behaviour] = [
    *behaviours_of(globals()),
    answered(_CHECKED, "No tools are no tools.", CHAT, _asked(max_tokens=2)),
    answered(_CHECKED, "`tools` of null are no tools.", CHAT, _asked(max_tokens=2, tools=None)),
    refused(_CHECKED, "`tool_choice` of `auto` without tools is refused.", CHAT, _asked(tool_choice="auto"), "tools"),
    refused(
        _CHECKED, "`tool_choice` of `required` without tools is refused.", CHAT, _asked(tool_choice="required"), "tools"
    ),
    refused(_CHECKED, "So it is with `tools` of null.", CHAT, _asked(tool_choice="required", tools=None), "tools"),
    refused(
        _CHECKED,
        "`structured_outputs` with a named function are refused.",
        CHAT,
        _asked(tools=[TOOL], tool_choice=_NAMED, structured_outputs={"json": {"type": "object"}}),
        "structured_outputs",
    ),
    answered(
        _CHECKED,
        "`structured_outputs` with `auto` are answered.",
        CHAT,
        _asked(tools=[TOOL], tool_choice="auto", structured_outputs={"choice": ["a"]}),
    ),
    answered(_NULL, "`tool_choice` of null without tools is no choice.", CHAT, _asked(max_tokens=2, tool_choice=None)),
    answered(
        _NULL,
        "It does not contradict `structured_outputs`.",
        CHAT,
        _asked(tool_choice=None, structured_outputs={"choice": ["a"]}),
    ),
    refused(
        _NULL,
        "Any other word as `tool_choice` is refused.",
        CHAT,
        _asked(tools=[TOOL], tool_choice="bogus"),
        "tool_choice",
    ),
    refused(_CALLING, "A named function without tools is refused.", CHAT, _asked(tool_choice=_NAMED), "tools"),
    refused(
        _CALLING,
        "A function that is not offered is refused.",
        CHAT,
        _asked(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "other"}}),
        "tool_choice",
    ),
    refused(_CALLING, "`tool_choice` of {} is refused.", CHAT, _asked(tools=[TOOL], tool_choice={}), "tool_choice"),
    answered(
        _CALLING,
        'Arguments of an earlier call may be "".',
        CHAT,
        _asked(
            max_tokens=2,
            messages=[
                *ASKED,
                {
                    **_CALLED,
                    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "now", "arguments": ""}}],
                },
                {**_RESULT, "tool_call_id": "1"},
            ],
        ),
    ),
    answered(
        _CALLING,
        "They may be {}.",
        CHAT,
        _asked(
            max_tokens=2,
            messages=[
                *ASKED,
                {
                    **_CALLED,
                    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"}}],
                },
                {**_RESULT, "tool_call_id": "1"},
            ],
        ),
    ),
    answered(
        "vLLM test_tool_calls",
        "A conversation with a call and its result is answered.",
        CHAT,
        _asked(messages=[*ASKED, _CALLED, _RESULT], tools=[TOOL]),
    ),
    answered(
        "vLLM test_parallel_tool_calls",
        "Two results of two calls are answered.",
        CHAT,
        _asked(
            max_tokens=2,
            messages=[
                *ASKED,
                {**_CALLED, "tool_calls": [*_CALLED["tool_calls"], {**_CALLED["tool_calls"][0], "id": "call_2"}]},
                _RESULT,
                {**_RESULT, "tool_call_id": "call_2"},
            ],
        ),
    ),
]
