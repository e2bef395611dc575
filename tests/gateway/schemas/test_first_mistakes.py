"""A body of many mistakes costs no more than one of one: the first is told, and the others are not looked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cpu_time import takes_less_than
from flask.testing import FlaskClient

import gateway.api.llama_cpp.body
import gateway.api.messages.body
import gateway.api.responses.body
import gateway.api.tokens.body
import gateway.schemas.vision  # noqa: F401
from gateway.reading.dear import SMALL_BYTES
from gateway.schemas.common import Body

MOST_S = 0.015
ASKED = '"messages":[{"role":"user","content":"Hi."}]'
FUNCTION = '"tools":[{"type":"function","function":{"name":"a"}}]'
CHOSEN = '"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"auto","tools":[MANY]}}'
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"


def bodies(body: type[Body] = Body) -> Iterator[type[Body]]:
    for each in body.__subclasses__():
        yield each
        yield from bodies(each)


def lists(schema: Any) -> Iterator[dict[str, Any]]:
    """The schemas of lists in what pydantic made of a body."""
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list | tuple) else ()
    if isinstance(schema, dict) and schema.get("type") == "list":
        yield schema
    for each in inner:
        yield from lists(each)


@pytest.mark.parametrize("body", sorted(set(bodies()), key=lambda body: body.__name__), ids=lambda body: body.__name__)
def test_every_list_ends_with_its_first_mistake(body: type[Body]) -> None:
    assert all(each.get("fail_fast") for each in lists(body.__pydantic_core_schema__))


@pytest.mark.parametrize(
    ("path", "written", "one"),
    [
        (CHAT, f"{ASKED},{FUNCTION},{CHOSEN}", "{}"),
        (CHAT, f'{ASKED},"allowed_token_ids":[MANY]', '"a"'),
        (CHAT, f'{ASKED},"stop":[MANY]', "1"),
        (CHAT, f'{ASKED},"tools":[MANY]', "{}"),
        (CHAT, f'{ASKED},"logit_bias":{{MANY}}', '"1":1e9'),
        (RESPONSES, '"input":[{"type":"reasoning","content":[MANY]}]', "1"),
        (RESPONSES, '"input":"Hi.","include":[MANY]', "1"),
        ("/v1/messages", f'{ASKED},"max_tokens":1,"betas":[MANY]', "1"),
    ],
)
def test_a_small_body_of_many_mistakes_is_refused_in_no_time(
    path: str, written: str, one: str, client: FlaskClient
) -> None:
    count = (SMALL_BYTES - len(written)) // (len(one) + 1)
    many = ",".join(one.replace("1", str(i), 1) if ":" in one else one for i in range(count))
    body = f"{{{written.replace('MANY', many)}}}"

    def is_refused() -> None:
        assert client.post(path, data=body, content_type="application/json").status_code == 400

    assert takes_less_than(MOST_S, is_refused)
