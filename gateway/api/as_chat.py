"""How other routes ask: with turns of their own, and the rest in the fields of /v1/chat/completions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from gateway.schemas.common import refusal
from gateway.schemas.conversation import Conversation, Turn
from gateway.schemas.openai import CompletionBody
from glmserve.answer_rules import AnswerRules
from glmserve.errors import InvalidInput

_ASKING = {"role": "user", "content": "?"}


def conversation_of(
    turns: tuple[Turn, ...],
    prompt_field: str,
    fields: dict[str, Any],
    names: dict[str, str],
    thinks_by_default: bool = False,
) -> Conversation:
    """What is asked; raises InvalidInput.

    `fields` are those of /v1/chat/completions, None where the request has none; `names` are what the route calls them.
    """
    document = {"messages": [_ASKING], **{name: value for name, value in fields.items() if value is not None}}
    try:
        asked = CompletionBody.model_validate(document).conversation(thinks_by_default)
    except ValidationError as error:
        raise _renamed(refusal(error, document, CompletionBody), names) from None
    except InvalidInput as error:
        raise _renamed(error, names) from None
    grammar = _renamed_rules(asked.grammar, names)
    return replace(asked, turns=turns, grammar=grammar, prompt_field=prompt_field, finish_of_calls="tool_calls")


def in_order_of_calls(results: list[tuple[str | None, Turn]], called: list[str | None]) -> list[Turn]:
    """Results of tools, each with the id of its call, in the order of the calls: a model is told no ids."""
    places = {name: place for place, name in enumerate(called)}
    return [turn for _, turn in sorted(results, key=lambda each: places.get(each[0], len(places)))]


def _renamed(error: InvalidInput, names: dict[str, str]) -> InvalidInput:
    """The same refusal with the fields called as the route calls them."""
    message = error.message
    for theirs, ours in names.items():
        message = message.replace(theirs, ours)
    return type(error)(message, None if error.field is None else _named(error.field, names))


def _renamed_rules(packed: bytes, names: dict[str, str]) -> bytes:
    """The same rules of an answer: the engine refuses them by the names of the route's own fields."""
    if not packed:
        return packed
    rules = AnswerRules.read(packed)
    text, calls = rules.text, rules.calls
    if text is not None:
        text = replace(text, field=_named(text.field, names))
    if calls is not None:
        calls = replace(calls, tools=tuple(replace(tool, field=_named(tool.field, names)) for tool in calls.tools))
    return replace(rules, text=text, calls=calls).packed()


def _named(field: str, names: dict[str, str]) -> str:
    """What the route calls a field of /v1/chat/completions; names that begin with a dot are of parts of fields."""
    for theirs, ours in names.items():
        if theirs.startswith("."):
            field = field.replace(theirs, ours)
        elif field == theirs or field.startswith((f"{theirs}.", f"{theirs}[")):
            field = ours + field.removeprefix(theirs)
    return field
