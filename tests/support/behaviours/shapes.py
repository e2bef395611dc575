"""Structured output: JSON, schemas, choices, expressions and grammars, and the mistakes in them."""

from __future__ import annotations

import json
import re
from typing import Any

from behaviours.asking import ASKED, CHAT, SHAPE, Service
from behaviours.listed import Behaviour, answered, behaviours_of, holds, refused

_VLLM = "vLLM test_chat"
_BROKEN = "vLLM test_chat_completion"
_CHECKED = "vLLM test_chat_completion_request_validations"
_LLAMA = "llama.cpp test_chat_completion"
_IP = r"((25[0-5]|(2[0-4]|1\d|[1-9]|)\d)\.){3}(25[0-5]|(2[0-4]|1\d|[1-9]|)\d)"
_CHOICES = ["Python", "Java", "C++"]
_WRONG = {
    "type": "object",
    "properties": {"car": {"$ref": "#/$defs/Car"}, "foo": "bar"},
    "$defs": {"Car": {"enum": ["SUV"]}},
}
_LARK = 'start: "SELECT " column " from " table\ncolumn: "col_1" | "col_2"\ntable: "table_1" | "table_2"'
_GBNF = 'root ::= "SELECT " column " from " table\ncolumn ::= "col_1" | "col_2"\ntable ::= "table_1" | "table_2"'
_SQL = r"SELECT col_[12] from table_[12]"


def _asked(**fields: Any) -> dict[str, Any]:
    return {"messages": ASKED, "max_tokens": 64, **fields}


def _told(service: Service, **fields: Any) -> str:
    choice = service.chat(**{"max_tokens": 128, **fields}).choice
    assert choice["finish_reason"] == "stop", choice
    return str(choice["message"]["content"])


def _is_shape(text: str) -> bool:
    found = json.loads(text)
    return set(found) == {"colour", "count"} and found["colour"] in SHAPE["properties"]["colour"]["enum"]


@holds(_VLLM, "`structured_outputs.choice` answers with one of the texts.")
def choice(service: Service) -> bool:
    return _told(service, structured_outputs={"choice": _CHOICES}) in _CHOICES


@holds(_VLLM, "`structured_outputs.json` answers with what its schema allows.")
def schema(service: Service) -> bool:
    return _is_shape(_told(service, structured_outputs={"json": SHAPE}))


@holds(_VLLM, "The schema may come as text.")
def schema_as_text(service: Service) -> bool:
    return _is_shape(_told(service, structured_outputs={"json": json.dumps(SHAPE)}))


@holds(_VLLM, "`structured_outputs.regex` answers with what the whole expression matches.")
def expression(service: Service) -> bool:
    return re.fullmatch(_IP, _told(service, structured_outputs={"regex": _IP})) is not None


@holds("vLLM test_structured_outputs", "`structured_outputs.grammar` answers in a grammar written as Lark's.")
def lark(service: Service) -> bool:
    return re.fullmatch(_SQL, _told(service, structured_outputs={"grammar": _LARK})) is not None


@holds("vLLM test_structured_outputs", "It answers in one written as EBNF, too.")
def ebnf(service: Service) -> bool:
    return re.fullmatch(_SQL, _told(service, structured_outputs={"grammar": _GBNF})) is not None


@holds("vLLM test_structured_outputs", "`structured_outputs.json_object` answers with an object.")
def any_object(service: Service) -> bool:
    reply = service.chat(max_tokens=200, structured_outputs={"json_object": True})
    return reply.content.startswith("{") and (
        reply.choice["finish_reason"] == "length" or isinstance(json.loads(reply.content), dict)
    )


@holds(_VLLM, "`logprobs` of constrained tokens are finite.")
def finite_logprobs(service: Service) -> bool:
    content = service.chat(logprobs=True, top_logprobs=5, structured_outputs={"choice": _CHOICES}).choice["logprobs"][
        "content"
    ]
    return all(item["logprob"] >= -9999 for token in content for item in token["top_logprobs"])


@holds(_VLLM, "`response_format` of `json_object` answers with an object.")
def json_object(service: Service) -> bool:
    return service.chat(max_tokens=16, response_format={"type": "json_object"}).content.startswith("{")


@holds(_VLLM, "`response_format` of `json_schema` answers with what its schema allows.")
def json_schema(service: Service) -> bool:
    return _is_shape(
        _told(service, response_format={"type": "json_schema", "json_schema": {"name": "shape", "schema": SHAPE}})
    )


@holds(_VLLM, "So it does in a stream.")
def json_schema_streamed(service: Service) -> bool:
    wanted = {"type": "json_schema", "json_schema": {"name": "shape", "schema": SHAPE}}
    return _is_shape(service.stream(max_tokens=128, response_format=wanted).streamed())


@holds(_VLLM, "`response_format` of `text` asks for nothing.")
def text(service: Service) -> bool:
    return service.chat(response_format={"type": "text"}).content == service.chat().content


@holds("vLLM test_structured_outputs", "`guided_choice` and `guided_regex` of older clients do the same.")
def guided(service: Service) -> bool:
    return _told(service, guided_choice=_CHOICES) in _CHOICES and _told(service, guided_regex="[ab]{3}")[0] in "ab"


@holds("vLLM test_structured_outputs", "`guided_json` and `guided_grammar` of older clients do the same.")
def guided_json(service: Service) -> bool:
    return _is_shape(_told(service, guided_json=SHAPE)) and _told(service, guided_grammar=_LARK).startswith("SELECT")


@holds("vLLM test_structured_outputs", "Structural tags hold what stands in them.")
def structural_tag(service: Service) -> bool:
    tag = {"structures": [{"begin": "<shape>", "schema": SHAPE, "end": "</shape>"}], "triggers": ["<shape>"]}
    return service.chat(response_format={"type": "structural_tag", **tag}).status == 200


@holds(_LLAMA, "`json_object` with a `schema` of `const` answers with it.")
def constant(service: Service) -> bool:
    return _told(service, response_format={"type": "json_object", "schema": {"const": "42"}}) == '"42"'


@holds(_LLAMA, "`json_schema` with a schema of `const` answers with it.")
def named_constant(service: Service) -> bool:
    wanted = {"type": "json_schema", "json_schema": {"schema": {"const": "foooooo"}}}
    return _told(service, response_format=wanted) == '"foooooo"'


@holds(_LLAMA, "A schema that is `items` alone answers with what it allows.")
def items_alone(service: Service) -> bool:
    wanted = {"type": "json_object", "schema": {"items": [{"type": "integer"}]}}
    return service.chat(response_format=wanted).status == 200


@holds(_LLAMA, "The field `json_schema` alone does the same.")
def schema_of_llama(service: Service) -> bool:
    return _told(service, json_schema={"const": "42"}) == '"42"'


@holds(_LLAMA, "The field `grammar` takes GBNF.")
def grammar_of_llama(service: Service) -> bool:
    return _told(service, grammar='root ::= "a"{5,5}') == "aaaaa"


BEHAVIOURS: list[Behaviour] = [
    *behaviours_of(globals()),
    refused(
        _VLLM,
        "An expression that is no text is refused.",
        CHAT,
        _asked(structured_outputs={"regex": {"1": "Python"}}),
        "structured_outputs",
    ),
    refused(
        _BROKEN,
        "A schema with something that is no schema in it is refused.",
        CHAT,
        _asked(structured_outputs={"json": _WRONG}),
        "structured_outputs",
    ),
    refused(
        _BROKEN,
        "A broken expression is refused.",
        CHAT,
        _asked(structured_outputs={"regex": "[.*"}),
        "structured_outputs",
    ),
    refused(
        _BROKEN,
        "A grammar that names a rule it has not is refused.",
        CHAT,
        _asked(structured_outputs={"grammar": 'root ::= select_broken\ncolumn ::= "a"'}),
        "structured_outputs",
    ),
    refused(
        _BROKEN, "An empty grammar is refused.", CHAT, _asked(structured_outputs={"grammar": ""}), "structured_outputs"
    ),
    refused(
        _CHECKED,
        "Two kinds at once are refused.",
        CHAT,
        _asked(structured_outputs={"json": {"type": "object"}, "regex": ".*"}),
        "structured_outputs",
    ),
    refused(
        _CHECKED,
        "`structured_outputs` of a number are refused.",
        CHAT,
        _asked(structured_outputs=3),
        "structured_outputs",
    ),
    refused(
        "vLLM test_sampling_params",
        "Two fields that both ask for a shape are refused.",
        CHAT,
        _asked(structured_outputs={"choice": ["a"]}, response_format={"type": "json_object"}),
        "structured_outputs",
    ),
    refused(
        _LLAMA,
        "`response_format` of an unknown type is refused.",
        CHAT,
        _asked(response_format={"type": "sound"}),
        "response_format",
    ),
    refused(
        _LLAMA,
        "A schema that is a number is refused.",
        CHAT,
        _asked(response_format={"type": "json_object", "schema": 123}),
        "response_format",
    ),
    refused(
        _LLAMA,
        "A schema whose type is a number is refused.",
        CHAT,
        _asked(response_format={"type": "json_object", "schema": {"type": 123}}),
        "response_format",
    ),
    refused(
        _LLAMA,
        "A schema of an unknown type is refused.",
        CHAT,
        _asked(response_format={"type": "json_object", "schema": {"type": "hiccup"}}),
        "response_format",
    ),
    refused(
        "vLLM test_structured_outputs",
        "An empty list of choices is refused.",
        CHAT,
        _asked(structured_outputs={"choice": []}),
        "structured_outputs",
    ),
    answered(
        "vLLM test_structured_outputs",
        "`disable_any_whitespace` is taken.",
        CHAT,
        _asked(structured_outputs={"json": SHAPE, "disable_any_whitespace": True}),
    ),
]
