"""What an answer must look like, as the gateway tells the engine in the GRAMMAR tensor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from glmserve.errors import InvalidInput
from glmserve.limits import MAX_RULES_BYTES

Kind = Literal["json_schema", "regex", "choice", "grammar", "structural_tag"]


@dataclass(frozen=True)
class TextRule:
    """What the answer's text must match; `field` is where in the request the rule stood.

    `value` is a JSON Schema as an object, a regular expression, a list of strings, a grammar in Lark or GBNF, or
    `triggers`, texts after which one of the `structures` must stand: its `begin`, JSON of its `schema`, its `end`.
    `is_compact` leaves no blank in JSON; otherwise one may follow each comma and colon.
    """

    kind: Kind
    value: Any
    field: str
    is_compact: bool = False


@dataclass(frozen=True)
class OfferedTool:
    """A function that may be called, the JSON Schema of its parameters, and whether a call must match all of it."""

    name: str
    parameters: dict[str, Any]
    is_strict: bool
    field: str


@dataclass(frozen=True)
class CallRule:
    """Which calls the answer may make: at most `most`, and at least one where it is `needed`.

    Where none is needed, the arguments of strict tools only must match their schemas.
    """

    tools: tuple[OfferedTool, ...]
    needed: bool
    most: int
    field: str


@dataclass(frozen=True)
class AnswerRules:
    """The answer is text, or calls where both are there; thoughts may come first where it `thinks`."""

    text: TextRule | None = None
    calls: CallRule | None = None
    thinks: bool = False

    @property
    def field(self) -> str:
        """The field of the request to blame when no part of the rules can be."""
        return self.calls.field if self.calls else self.text.field if self.text else ""

    def parts(self) -> Iterator[AnswerRules]:
        """The rules of the text, and those of each tool, alone."""
        if self.text:
            yield AnswerRules(self.text)
        for tool in self.calls.tools if self.calls else ():
            assert self.calls
            yield AnswerRules(calls=replace(self.calls, tools=(tool,), field=tool.field))

    def packed(self) -> bytes:
        """The rules as JSON in UTF-8."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")

    @staticmethod
    def read(packed: bytes) -> AnswerRules:
        """Raises InvalidInput where this is not what `packed` makes."""
        if len(packed) > MAX_RULES_BYTES:
            raise InvalidInput(f"The rules of an answer have {len(packed)} bytes; at most {MAX_RULES_BYTES} are read.")
        try:
            document = json.loads(packed)
            text, calls = document["text"], document["calls"]
            rules = AnswerRules(
                TextRule(**text) if text else None,
                CallRule(**calls | {"tools": tuple(OfferedTool(**tool) for tool in calls["tools"])}) if calls else None,
                bool(document["thinks"]),
            )
        except (ValueError, TypeError, KeyError, RecursionError):
            raise InvalidInput("The tensor GRAMMAR does not hold the rules of an answer.") from None
        if rules.text and rules.text.kind not in get_args(Kind):
            raise InvalidInput("The tensor GRAMMAR names an unknown kind of rule.")
        return rules
