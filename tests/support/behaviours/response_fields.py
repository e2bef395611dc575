"""The fields and items of OpenAI's responses that are taken, and those that are refused."""

from __future__ import annotations

from typing import Any

from behaviours.asking import PICTURE_URL, RESPONSES
from behaviours.listed import Behaviour, answered, refused
from behaviours.responses import FORMAT, NAMED, TOOL, said

_SIMPLE = "vLLM test_simple"
_BASIC = "vLLM test_basic (responses)"
_PARSED = "vLLM test_function_call_parsing"
_CHECKED = "vLLM test_responses_request_validations"
_SAMPLED = "vLLM test_sampling_params (responses)"
_STATE = "vLLM test_serving_stateless"
_LLAMA = "llama.cpp test_compat_oai_responses"


def _asked(**fields: Any) -> dict[str, Any]:
    return {"input": "Who are you?", "max_output_tokens": 8, **fields}


BEHAVIOURS: list[Behaviour] = [
    answered(
        _BASIC,
        "A conversation with a system text is answered.",
        RESPONSES,
        _asked(
            input=[
                {"role": "system", "content": "Be brief."},
                said("user", "A?"),
                said("assistant", "B."),
                said("user", "C?"),
            ]
        ),
    ),
    answered(
        _BASIC,
        "Content may be `input_text` parts.",
        RESPONSES,
        _asked(input=[{"role": "user", "content": [{"type": "input_text", "text": "Hello!"}]}]),
    ),
    answered(
        _SIMPLE,
        "`top_k`, `repetition_penalty` and `seed` are taken.",
        RESPONSES,
        _asked(top_k=40, repetition_penalty=1.2, seed=42, temperature=0.7, top_p=0.9),
    ),
    answered(_SAMPLED, "`ignore_eos` is taken.", RESPONSES, _asked(ignore_eos=True)),
    answered(_SAMPLED, "`cache_salt` is taken.", RESPONSES, _asked(cache_salt="one")),
    answered(_SAMPLED, "A `seed` of the least 64-bit number is taken.", RESPONSES, _asked(seed=-(2**63))),
    refused(_SAMPLED, "One below it is refused.", RESPONSES, _asked(seed=-(2**63) - 1), "seed"),
    refused(_SAMPLED, "One above the greatest is refused.", RESPONSES, _asked(seed=2**63), "seed"),
    answered(
        _SAMPLED,
        "`text.format` of `json_object` is taken.",
        RESPONSES,
        _asked(text={"format": {"type": "json_object"}}),
    ),
    refused(
        _SAMPLED,
        "`structured_outputs` and `text.format` together are refused.",
        RESPONSES,
        _asked(structured_outputs={"choice": ["a"]}, text={"format": FORMAT}),
        "structured_outputs",
    ),
    answered(_CHECKED, "`tools` of [] are no tools.", RESPONSES, _asked(tools=[])),
    answered(_CHECKED, "`tool_choice` of `auto` without tools is none.", RESPONSES, _asked(tool_choice="auto")),
    answered(_CHECKED, "`tool_choice` of `none` without tools is none.", RESPONSES, _asked(tool_choice="none")),
    refused(
        _CHECKED,
        "`tool_choice` of `required` without tools is refused.",
        RESPONSES,
        _asked(tool_choice="required"),
        "tool",
    ),
    refused(_CHECKED, "So it is with `tools` of [].", RESPONSES, _asked(tool_choice="required", tools=[]), "tool"),
    refused(_CHECKED, "A named function without tools is refused.", RESPONSES, _asked(tool_choice=NAMED), "tool"),
    refused(
        _CHECKED,
        "A function that is not offered is refused.",
        RESPONSES,
        _asked(tools=[TOOL], tool_choice={**NAMED, "name": "other"}),
        "tool_choice",
    ),
    refused(
        _CHECKED,
        "A `tool_choice` without a name is refused.",
        RESPONSES,
        _asked(tools=[TOOL], tool_choice={"type": "function"}),
        "tool_choice",
    ),
    refused(
        _CHECKED,
        "So is one with an empty name.",
        RESPONSES,
        _asked(tools=[TOOL], tool_choice={**NAMED, "name": ""}),
        "tool_choice",
    ),
    answered(
        _CHECKED,
        "Image parts as the chat route has them are taken.",
        RESPONSES,
        _asked(
            input=[
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": PICTURE_URL}},
                        {"type": "input_text", "text": "What?"},
                    ],
                }
            ]
        ),
    ),
    answered(
        _CHECKED,
        "So is `input_image` with an object.",
        RESPONSES,
        _asked(
            input=[
                {
                    "role": "user",
                    "content": [
                        {"type": "input_image", "image_url": {"url": PICTURE_URL}},
                        {"type": "input_text", "text": "What?"},
                    ],
                }
            ]
        ),
    ),
    answered(
        _PARSED,
        "Calls and results between messages are taken, with arguments as deep as they are.",
        RESPONSES,
        _asked(
            input=[
                said("user", "A?"),
                {
                    "type": "function_call",
                    "call_id": "1",
                    "name": "f",
                    "arguments": '{"a": {"b": [1, {"c": "d"}]}}',
                    "id": "fc_1",
                },
                {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "1", "output": "72°F"},
                {"type": "function_call_output", "call_id": "2", "output": "x"},
            ]
        ),
    ),
    refused(
        _PARSED,
        "Arguments that are no JSON are refused.",
        RESPONSES,
        _asked(
            input=[
                said("user", "A?"),
                {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{"},
                said("user", "B?"),
            ]
        ),
        "arguments",
    ),
    refused(
        _PARSED,
        "A call without `call_id` is refused.",
        RESPONSES,
        _asked(
            input=[said("user", "A?"), {"type": "function_call", "name": "f", "arguments": "{}"}, said("user", "B?")]
        ),
        "call_id",
    ),
    refused(
        _STATE,
        "`previous_response_id` is refused where nothing is kept.",
        RESPONSES,
        _asked(previous_response_id="resp_old"),
        "previous_response_id",
    ),
    answered("vLLM test_store_field", "`store` is taken, and read as false.", RESPONSES, _asked(store=True)),
    refused(
        "vLLM test_stateful",
        "`background` without a store is refused.",
        RESPONSES,
        _asked(background=True, store=False),
        "background",
    ),
    refused(
        _LLAMA,
        "`text.format` of `json_schema` without a schema is refused.",
        RESPONSES,
        _asked(text={"format": {"type": "json_schema", "name": "test"}}),
        "schema",
    ),
    answered(_LLAMA, "`text.format` of `text` asks for nothing.", RESPONSES, _asked(text={"format": {"type": "text"}})),
]
