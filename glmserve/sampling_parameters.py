"""The one table of sampling parameters: request fields, tensors, range checks and documentation are made from it.

A parameter is a field of `Sampling`, declared with `parameter`. CONTRIBUTING.md says how to add one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from glmserve.limits import MAX_LOGPROBS, MAX_NEW_TOKENS, SAMPLER_CANDIDATES

Value = float | int | bool
DEFAULT_MAX_TOKENS = 512
_LARGEST_INT32 = 2**31 - 1
_LARGEST_INT64 = 2**63 - 1
_WIRE_DTYPES = {bool: "bool", int: "int32", float: "float32"}


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One sampling parameter. `name` is its name everywhere: in requests, in Python and in the graph.

    `default` is the engine's value for a request that does not set it, `request_default` the HTTP routes', where it
    differs: a value, or a function that makes a new one for each request. Some clients send a `sentinel` for a field
    they do not set. With `is_cut`, a request's value above `maximum` stands for the maximum.
    """

    name: str
    type: type[Value]
    default: Value
    meaning: str
    minimum: Value
    maximum: Value
    excludes_minimum: bool = False
    request_default: Value | Callable[[], Value] | None = None
    sentinel: int | None = None
    is_cut: bool = False
    vision_aliases: tuple[str, ...] = ()  # other names of the field in /v1/chat/vision
    openai_aliases: tuple[str, ...] = ()  # and in /v1/chat/completions
    is_optional: bool = True  # whether the tensor may be left out, which then stands for `default`
    wire_dtype: str
    graph_dtype: str | None = None  # of the decoder graph's input of this name, [rows, 1]; None where it has none

    @property
    def tensor_name(self) -> str:
        """The name of its tensor in a request to Triton."""
        return self.name.upper()

    @property
    def request_names(self) -> tuple[str, ...]:
        """The names of its field in requests, the first of which counts most."""
        return self.name, *self.vision_aliases, *self.openai_aliases

    @property
    def documented_default(self) -> Value | None:
        """What stands for an absent field; None where each request gets a value of its own."""
        if callable(self.request_default):
            return None
        return self.default if self.request_default is None else self.request_default

    @property
    def accepted(self) -> str:
        """The accepted values in words, as in "The field … must be …"."""
        if self.type is bool:
            return "true or false"
        if self.excludes_minimum:
            return f"a number above {_text(self.minimum)} and at most {_text(self.maximum)}"
        kind = "a whole number" if self.type is int else "a number"
        span = f"{kind} from {_text(self.minimum)} to {_text(self.maximum)}"
        return span if self.sentinel is None else f"{span}, or {self.sentinel} as if it were absent"

    @property
    def wanted(self) -> str:
        """What a request may send, in words: a value that is too large may be cut."""
        if self.is_cut:
            return f"a whole number of at least {_text(self.minimum)}; above {_text(self.maximum)} it is cut to that"
        return self.accepted

    def requested(self, value: Value | None) -> Value:
        """The value of a request whose field holds `value`; None stands for an absent field."""
        if value is not None and value != self.sentinel:
            return min(value, self.maximum) if self.is_cut else value
        if callable(self.request_default):
            return self.request_default()
        return self.default if self.request_default is None else self.request_default


def _text(value: Value) -> str:
    if value in (_LARGEST_INT64, -_LARGEST_INT64 - 1):
        return "2^63 - 1" if value > 0 else "-2^63"
    return str(value) if isinstance(value, int) else f"{value:g}"


def parameter(default: Value, **described: Any) -> Any:
    """A field of `Sampling` that is a sampling parameter; `described` are the fields of its `Parameter`."""
    return field(default=default, metadata={"described": described})


def parameters_of(sampling: type) -> tuple[Parameter, ...]:
    """The table: every parameter of a dataclass, in order."""
    table = []
    for declared in fields(sampling):
        if "described" in declared.metadata:
            default: Any = declared.default
            described = {"wire_dtype": _WIRE_DTYPES[type(default)], **declared.metadata["described"]}
            table.append(Parameter(name=declared.name, type=type(default), default=default, **described))
    return tuple(table)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How one answer's tokens are sampled; without arguments, greedily. The gateway makes it, the engine uses it."""

    max_tokens: int = parameter(
        DEFAULT_MAX_TOKENS,
        meaning="The most tokens to generate.",
        minimum=1,
        maximum=MAX_NEW_TOKENS,
        vision_aliases=("max_new_tokens",),
        openai_aliases=("max_completion_tokens",),
        is_optional=False,
        is_cut=True,
    )
    min_tokens: int = parameter(
        0,
        meaning="The fewest tokens to generate: until then nothing ends the answer.",
        minimum=0,
        maximum=MAX_NEW_TOKENS,
    )
    temperature: float = parameter(
        0.0,
        meaning="How freely tokens are drawn; 0 always takes the likeliest.",
        minimum=0,
        maximum=2,
        request_default=0.7,
        is_optional=False,
        graph_dtype="float32",
    )
    top_p: float = parameter(
        1.0,
        meaning="Draws among the likeliest tokens that together have this probability.",
        minimum=0,
        excludes_minimum=True,
        maximum=1,
        is_optional=False,
        graph_dtype="float32",
    )
    top_k: int = parameter(
        0,
        meaning=f"Draws among this many of the likeliest tokens; 0 is among {SAMPLER_CANDIDATES}, "
        "as many as there ever are.",
        minimum=0,
        maximum=_LARGEST_INT32,
        sentinel=-1,
        is_optional=False,
        graph_dtype="int64",
    )
    min_p: float = parameter(
        0.0,
        meaning="Leaves out tokens less likely than this share of the likeliest one's probability.",
        minimum=0,
        maximum=1,
        graph_dtype="float32",
    )
    repetition_penalty: float = parameter(
        1.0,
        meaning="Makes what was said before less likely (above 1) or more.",
        minimum=0.01,
        maximum=10,
    )
    frequency_penalty: float = parameter(
        0.0,
        meaning="Taken off a token's logit once for each time the answer has it so far.",
        minimum=-2,
        maximum=2,
    )
    presence_penalty: float = parameter(
        0.0,
        meaning="Taken off a token's logit once the answer has it.",
        minimum=-2,
        maximum=2,
    )
    seed: int = parameter(
        0,
        meaning="The same seed draws the same random numbers; without one each answer draws its own.",
        minimum=-_LARGEST_INT64 - 1,
        maximum=_LARGEST_INT64,
        sentinel=-1,
        request_default=partial(secrets.randbelow, _LARGEST_INT64),
        is_optional=False,
        wire_dtype="int64",
    )
    logprobs: bool = parameter(
        False,
        meaning="Whether each token's log-probability is told.",
        minimum=False,
        maximum=True,
    )
    top_logprobs: int = parameter(
        0,
        meaning="Of how many of the likeliest tokens in each place it is told too; needs logprobs.",
        minimum=0,
        maximum=MAX_LOGPROBS,
    )
    ignore_eos: bool = parameter(
        False,
        meaning="Whether the checkpoint's own end tokens are tokens like any other.",
        minimum=False,
        maximum=True,
    )
    # Lists, which are no entries of the table: each has tensors of its own in `contract`.
    stop_token_ids: tuple[int, ...] = ()
    """Token ids that end the answer beside the checkpoint's own."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Token ids, and what is added to the logit of each."""
    bad_words: tuple[tuple[int, ...], ...] = ()
    """Words as token ids: a word's last token is never drawn after its other tokens."""
    allowed_token_ids: tuple[int, ...] = ()
    """The only token ids that may be drawn; empty allows all."""

    @property
    def edits_logits(self) -> bool:
        """Whether anything changes the logits before a draw, a grammar apart."""
        penalties = self.repetition_penalty != 1 or self.frequency_penalty != 0 or self.presence_penalty != 0
        return penalties or bool(self.min_tokens or self.logit_bias or self.bad_words or self.allowed_token_ids)


PARAMETERS = parameters_of(Sampling)
BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}
LISTS = ("stop_token_ids", "logit_bias", "bad_words", "allowed_token_ids")
"""The fields of `Sampling` that are no entries of the table."""
GRAPH_PARAMETERS = tuple(entry for entry in PARAMETERS if entry.graph_dtype)
"""Those that the decoder's graph takes, one value a row."""
