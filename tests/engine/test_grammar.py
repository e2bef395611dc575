"""An answer under a JSON Schema matches it, and nobody else waits for its masks."""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import Future
from pathlib import Path
from threading import Timer

import numpy as np
import pytest
from engine_rig import Receiver, request, running
from eventually import eventually
from fake_decoder import FakeSession

from glmserve.answer_rules import AnswerRules, TextRule
from glmserve.contract import Finish
from glmserve.engine.grammars import trial
from glmserve.engine.grammars.compiler import GrammarCompiler
from glmserve.engine.grammars.trial import GrammarTrial
from glmserve.errors import GlmServeError, InvalidInput
from glmserve.limits import MAX_KEPT_GRAMMARS, MAX_RULES_BYTES
from glmserve.model.config import Checkpoint
from glmserve.model.tokenizer import Tokenizer
from glmserve.system.stopped import is_stopped

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
SCHEMA = {
    "type": "object",
    "properties": {"count": {"type": "integer"}, "shape": {"enum": ["circle", "square"]}},
    "required": ["count", "shape"],
    "additionalProperties": False,
}
WAIT_S = 10


def rules(schema: object) -> bytes:
    """Rules that ask for a JSON Schema."""
    return AnswerRules(TextRule("json_schema", schema, "response_format")).packed()


pytestmark = pytest.mark.process  # grammars are tried in a process of their own


@pytest.mark.parametrize("seed", range(5))
def test_any_tokens_drawn_within_the_masks_spell_what_the_schema_asks_for(compiler: GrammarCompiler, seed: int) -> None:
    checkpoint, tokenizer = Checkpoint.read(DEMO), Tokenizer.read(DEMO)
    grammar = compiler.compile(rules(SCHEMA))
    random, tokens = np.random.default_rng(seed), list[int]()
    mask = grammar.first_mask().result(WAIT_S)
    while not set(np.flatnonzero(mask)) & set(checkpoint.eos_token_ids):
        tokens.append(int(random.choice(np.flatnonzero(mask))))
        mask = grammar.next_mask(tokens[-1]).result(WAIT_S)
    answer = json.loads(tokenizer.decode(tokens))
    assert set(answer) == {"count", "shape"} and isinstance(answer["count"], int)
    assert answer["shape"] in ("circle", "square")


@pytest.mark.parametrize(
    "schema",
    [
        [],
        "{",
        {"type": 7},
        {"$ref": "http://somewhere/else"},
        {"const": "\ud800"},
        {"const": int("1" * 400)},
    ],
)
def test_what_is_no_schema_is_the_users_mistake(compiler: GrammarCompiler, schema: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        compiler.compile(rules(schema))
    assert caught.value.field == "response_format"


@pytest.mark.parametrize(
    "packed", [b"{", b"[]", b"{}", b" " * (MAX_RULES_BYTES + 1), b"[" * 50_000, b'{"type": "object"}']
)
def test_what_are_no_rules_is_refused(compiler: GrammarCompiler, packed: bytes) -> None:
    with pytest.raises(InvalidInput):
        compiler.compile(packed)


def test_a_schema_that_cannot_be_begun_is_the_users_mistake(compiler: GrammarCompiler) -> None:
    """The library would allow nothing but the end, and the answer would be empty."""
    with pytest.raises(InvalidInput) as caught:
        compiler.compile(rules({"$ref": "#"})).first_mask().result(WAIT_S)
    assert caught.value.field == "response_format"


def test_an_answer_that_its_schema_leads_nowhere_is_not_ended_as_if_it_were_whole(compiler: GrammarCompiler) -> None:
    nowhere = {"$ref": "#/$defs/nowhere"}
    schema = {"type": "object", "properties": {"a": nowhere}, "required": ["a"], "$defs": {"nowhere": nowhere}}
    grammar = compiler.compile(rules(schema))
    assert grammar.first_mask().result(WAIT_S).any()
    with pytest.raises(InvalidInput, match="without end"):
        for token in Tokenizer.read(DEMO).encode_plain('{"a": '):
            assert grammar.next_mask(token).result(WAIT_S).any()


def _properties(count: int, **more: object) -> bytes:
    return rules({"properties": {f"p{i}": {"type": "integer"} for i in range(count)}, **more})


def test_an_object_of_many_optional_properties_is_followed_to_its_end(compiler: GrammarCompiler) -> None:
    """llguidance's own limit of alternatives ends at 500 of them, after the first token."""
    schema, tokenizer = _properties(800, additionalProperties=False, type="object"), Tokenizer.read(DEMO)
    grammar = compiler.compile(schema)
    mask = grammar.first_mask().result(WAIT_S)
    for token in tokenizer.encode_plain('{"p0": 7, "p1": 8, "p799": 9}'):
        assert mask[token]
        mask = grammar.next_mask(token).result(WAIT_S)
    assert set(np.flatnonzero(mask)) & set(Checkpoint.read(DEMO).eos_token_ids)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "multipleOf": 999_983},
        {"type": "string", "allOf": [{"pattern": f"a{{{i}}}|b"} for i in range(200)]},
        {"properties": {format(i, "x"): {"enum": [i]} for i in range(2_500)}},
    ],
    ids=["multiple", "patterns", "properties"],
)
def test_a_schema_that_takes_too_long_is_the_users_mistake_and_ends(compiler: GrammarCompiler, schema: object) -> None:
    began_s = time.process_time()
    with pytest.raises(InvalidInput, match="too complex") as caught:
        compiler.compile(rules(schema))
    assert caught.value.field == "response_format"
    assert time.process_time() - began_s < 0.5, "this process did the work"
    assert compiler.compile(rules(SCHEMA))


def test_a_schema_whose_answer_becomes_too_complex_later_is_the_users_mistake(compiler: GrammarCompiler) -> None:
    inner = {"properties": {f"p{i}": {"type": "integer"} for i in range(1_200)}}
    grammar = compiler.compile(rules({"properties": {"a": inner}, "required": ["a"]}))
    with pytest.raises(InvalidInput, match="too complex") as caught:
        for token in Tokenizer.read(DEMO).encode_plain('{"a": {"p'):
            grammar.next_mask(token).result(WAIT_S)
    assert caught.value.field == "response_format"


def test_a_schema_is_compiled_once_for_each_scope(compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bytes] = []
    verdict = GrammarTrial.verdict
    monkeypatch.setattr(GrammarTrial, "verdict", lambda trial, text: (tried.append(text), verdict(trial, text))[1])
    schema, wrong = _properties(3), rules({"type": 8})
    assert compiler.kept(schema, 1) is None
    first, second = compiler.compile(schema, 1), compiler.compile(schema, 1)
    token = Tokenizer.read(DEMO).encode_plain("{")[0]
    assert first.next_mask(token).result(WAIT_S).any() and second.next_mask(token).result(WAIT_S).any()
    assert compiler.kept(schema, 1) and len(tried) == 1
    assert compiler.kept(schema, 2) is None
    for _ in range(2):
        with pytest.raises(InvalidInput):
            compiler.compile(wrong, 1)
    assert len(tried) == 2


def test_only_the_latest_grammars_are_kept(compiler: GrammarCompiler) -> None:
    schemas = [_properties(2, title=str(i)) for i in range(MAX_KEPT_GRAMMARS + 1)]
    for schema in schemas:
        compiler.compile(schema, 3)
    assert compiler.kept(schemas[0], 3) is None and compiler.kept(schemas[-1], 3) is not None


def test_the_process_that_tries_grammars_is_started_again_when_it_dies(compiler: GrammarCompiler) -> None:
    compiler.compile(_properties(4))
    compiler._trial._process.kill()
    compiler._trial._process.wait()
    assert compiler.compile(_properties(5))


def test_the_process_that_tries_grammars_is_replaced_when_it_was_stopped_while_idle(compiler: GrammarCompiler) -> None:
    compiler.compile(_properties(6))
    pid = compiler._trial._process.pid
    os.kill(pid, signal.SIGSTOP)
    assert eventually(lambda: is_stopped(pid))
    assert compiler.compile(_properties(7)) and compiler._trial._process.pid != pid


def test_the_process_that_tries_grammars_is_replaced_when_it_hangs(
    compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler.compile(_properties(8))
    pid = compiler._trial._process.pid
    after_s = iter([0.5, 60.0])
    monkeypatch.setattr(trial, "Timer", lambda _seconds, act, arguments: Timer(next(after_s), act, arguments))
    monkeypatch.setattr(trial, "is_stopped", lambda _pid: False)  # as if somebody stopped it a moment later
    os.kill(pid, signal.SIGSTOP)
    assert compiler.compile(_properties(9)) and compiler._trial._process.pid != pid


class _SlowGrammar:
    """Allows one token after the other; each mask is ready when the test says so."""

    def __init__(self, tokens: list[int], vocabulary: int) -> None:
        self._tokens, self._vocabulary = tokens, vocabulary
        self.pending: list[Future[np.ndarray]] = []
        self.taken: list[int] = []
        self._first = self._future(is_ready=True)

    def first_mask(self) -> Future[np.ndarray]:
        return self._first

    def next_mask(self, token: int) -> Future[np.ndarray]:
        self.taken.append(token)
        return self._future(is_ready=False)

    def release(self) -> None:
        future = self.pending.pop()
        future.set_result(self._mask())

    def _future(self, is_ready: bool) -> Future[np.ndarray]:
        future: Future[np.ndarray] = Future()
        if is_ready:
            future.set_result(self._mask())
        else:
            self.pending.append(future)
        return future

    def _mask(self) -> np.ndarray:
        mask = np.zeros(self._vocabulary, np.bool_)
        mask[self._tokens[len(self.taken)]] = True
        return mask


def test_a_request_under_a_grammar_draws_only_what_it_allows_and_holds_nobody_up() -> None:
    session = FakeSession(rows=2, context=80_000, vocabulary=100_000)
    with running(session) as (engine, _):
        grammar = _SlowGrammar([42, 41, 40], session.vocabulary)
        bound, free = Receiver(), Receiver()
        engine.submit(request([1], bound, max_tokens=3, grammar=grammar))
        engine.submit(request([2000], free, max_tokens=70_000))
        assert bound.got_token.wait(WAIT_S) and free.got_token.wait(WAIT_S)
        before = len(free.events)
        while len(free.events) < before + 200:  # many steps with the mask still being worked out
            assert not free.events[-1].is_last
        assert bound.tokens == [42]
        grammar.release()
        while len(bound.tokens) < 2:
            assert not free.events[-1].is_last
        grammar.release()
        assert bound.finish == Finish.LENGTH and bound.tokens == [42, 41, 40]
        free.cancelled.set()
        assert free.code == "cancelled"
        assert free.tokens == [2001 + i for i in range(len(free.tokens))]


def test_a_grammar_that_fails_ends_its_own_request_only() -> None:
    with running(FakeSession(rows=2, vocabulary=100)) as (engine, session):
        grammar = _SlowGrammar([42, 41], session.vocabulary)
        bound, free = Receiver(), Receiver()
        engine.submit(request([1], bound, max_tokens=3, grammar=grammar))
        assert bound.got_token.wait(WAIT_S)
        engine.submit(request([10], free, max_tokens=5))
        while not grammar.pending:
            assert not bound.events[-1].is_last
        grammar.pending.pop().set_exception(GlmServeError("The answer left its grammar."))
        assert bound.code == "internal"
        assert free.finish == Finish.LENGTH
