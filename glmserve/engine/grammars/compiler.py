"""Structured outputs: llguidance computes which tokens an answer's rules allow next, on two threads of their own."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from llguidance import LLMatcher

from glmserve.answer_rules import AnswerRules
from glmserve.engine.grammars.answer_grammar import control_tokens, grammar_of
from glmserve.engine.grammars.trial import GrammarTrial, Verdict, load_tokenizer, matcher_of
from glmserve.errors import GlmServeError, InvalidInput, Overloaded
from glmserve.limits import MAX_KEPT_GRAMMARS
from glmserve.system.started_pool import started_pool

_THREADS = 2
_MASK_NICENESS = 5  # decode steps, which everybody waits for, come first
_MOST_BLAMED = 3  # parts of rules that are tried alone once all together took too long: a second each
_SUBJECTS = {
    "json_schema": "JSON Schema",
    "regex": "regular expression",
    "choice": "list of choices",
    "grammar": "grammar",
    "structural_tag": "structural tag",
}
_REASONS = {
    Verdict.UNSUPPORTED: "cannot be turned into a grammar, or nothing can match it.",
    Verdict.TOO_COMPLEX: "is too complex: use fewer alternatives, fewer or simpler patterns, a smaller multipleOf, at "
    "most 1,000 optional properties in an object (more where all are required).",
    Verdict.NO_START: "refers to itself without end, or its patterns are too large.",
}


class GrammarCompiler:
    """Makes grammars for one tokenizer; safe to share between threads."""

    def __init__(self, tokenizer: Path, vocabulary: int, eos_token_ids: tuple[int, ...]) -> None:
        """`tokenizer` is a `tokenizer.json`; takes a second or two for a large one. Raises BadArtifact."""
        self._tokenizer = load_tokenizer(tokenizer, vocabulary, eos_token_ids)
        self._tokens = control_tokens(self._tokenizer)
        self._vocabulary = vocabulary
        self._trial = GrammarTrial(tokenizer, vocabulary, eos_token_ids)
        self._compiling = threading.Lock()
        self._kept = _KeptGrammars()
        self._pool = started_pool(_THREADS, "grammars", _make_way)

    def start(self) -> None:
        """Starts the process that tries rules, so that the first of them finds it ready."""
        self._trial.start()

    def kept(self, rules: bytes, scope: int = 0) -> AnswerGrammar | None:
        """The grammar that this scope has had compiled before; None, at once, when it has to be compiled.

        `rules` are packed `AnswerRules`. Raises InvalidInput when they could not be compiled then.
        """
        found = self._kept.find(rules, scope)
        if isinstance(found, InvalidInput):
            raise _again(found)
        return None if found is None else self._begun(found)

    def compile(self, rules: bytes, scope: int = 0) -> AnswerGrammar:
        """The grammar of packed `AnswerRules`; raises InvalidInput, with the field at fault, for what is too complex or
        cannot be matched.

        Other callers wait meanwhile: a second of CPU time at most for each.
        """
        with self._compiling:
            kept = self.kept(rules, scope)
            if kept is not None:
                return kept
            try:
                compiled = self._compiled(rules)
            except InvalidInput as error:
                self._kept.keep(rules, scope, error)
                raise
            self._kept.keep(rules, scope, compiled)
            return self._begun(compiled)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._trial.close()

    def _begun(self, compiled: _Compiled) -> AnswerGrammar:
        return AnswerGrammar(compiled, self._vocabulary, self._pool)

    def _compiled(self, packed: bytes) -> _Compiled:
        rules = AnswerRules.read(packed)
        verdict = self._trial.verdict(packed)
        if verdict == Verdict.LATE:
            raise Overloaded("The service is too busy to compile the rules of an answer.")
        if verdict not in (Verdict.FITS, Verdict.REFUSED):
            raise self._refusal(rules, verdict)
        matcher = matcher_of(self._tokenizer, grammar_of(rules, self._tokens))
        if matcher.is_error():
            raise GlmServeError("A grammar that fitted on trial could not be compiled.")
        blamed = {verdict: _refusal(rules, verdict) for verdict in _REASONS}
        return _Compiled(matcher, _mask(matcher, self._vocabulary, blamed), blamed, threading.Lock())

    def _refusal(self, rules: AnswerRules, verdict: Verdict) -> InvalidInput:
        """What is wrong with rules that do not fit, said of the part of them that is."""
        parts = list(rules.parts())
        most = len(parts) if verdict == Verdict.UNSUPPORTED else _MOST_BLAMED  # those before the bad one fit in time
        if len(parts) == 1:
            return _refusal(parts[0], verdict)
        for part in islice(parts, most):
            alone = self._trial.verdict(part.packed())
            if alone in _REASONS:
                return _refusal(part, alone)
        return _refusal(rules, verdict)


def _refusal(rules: AnswerRules, verdict: Verdict) -> InvalidInput:
    if rules.calls:
        subject = (
            f"The JSON Schema in {rules.field}" if len(rules.calls.tools) == 1 else "The tools' parameters, a list,"
        )
    else:
        assert rules.text
        subject = f"The {_SUBJECTS[rules.text.kind]} in {rules.field}"
    return InvalidInput(f"{subject} {_REASONS[verdict]}", rules.field)


@dataclass(frozen=True)
class _Compiled:
    """A grammar at its beginning, which is copied for each answer.

    `blamed` says what is wrong with the rules where they lead nowhere, or to too much, only later.
    """

    matcher: LLMatcher
    first_mask: np.ndarray
    blamed: dict[Verdict, InvalidInput]
    copying: threading.Lock

    def copy(self) -> LLMatcher:
        with self.copying:
            return self.matcher.deep_copy()


class _KeptGrammars:
    """The grammars, or the refusals, of the rules that were used last: each for the scope that sent them only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_digest: OrderedDict[tuple[int, bytes], _Compiled | InvalidInput] = OrderedDict()

    def find(self, rules: bytes, scope: int) -> _Compiled | InvalidInput | None:
        key = _key(rules, scope)
        with self._lock:
            found = self._by_digest.get(key)
            if found is not None:
                self._by_digest.move_to_end(key)
            return found

    def keep(self, rules: bytes, scope: int, result: _Compiled | InvalidInput) -> None:
        with self._lock:
            self._by_digest[_key(rules, scope)] = result
            while len(self._by_digest) > MAX_KEPT_GRAMMARS:
                self._by_digest.popitem(last=False)


def _key(rules: bytes, scope: int) -> tuple[int, bytes]:
    return scope, hashlib.sha256(rules).digest()


class AnswerGrammar:
    """The `Grammar` of one answer, from its first token to its last."""

    def __init__(self, compiled: _Compiled, vocabulary: int, pool: ThreadPoolExecutor) -> None:
        self._compiled = compiled
        self._matcher = compiled.copy()
        self._vocabulary = vocabulary
        self._pool = pool
        self._first: Future[np.ndarray] = Future()
        self._first.set_result(compiled.first_mask)

    def another(self) -> AnswerGrammar:
        """The same at its beginning, for another answer; at once, whatever is being compiled."""
        return AnswerGrammar(self._compiled, self._vocabulary, self._pool)

    def first_mask(self) -> Future[np.ndarray]:
        return self._first

    def next_mask(self, token: int) -> Future[np.ndarray]:
        return self._pool.submit(self._advance, token)

    def _advance(self, token: int) -> np.ndarray:
        if not self._matcher.consume_token(token):
            if "satisfy the grammar" in self._matcher.get_error():
                raise GlmServeError("The answer left its grammar.")
            raise _again(self._compiled.blamed[Verdict.TOO_COMPLEX])
        return _mask(self._matcher, self._vocabulary, self._compiled.blamed)


def _mask(matcher: LLMatcher, vocabulary: int, blamed: dict[Verdict, InvalidInput]) -> np.ndarray:
    """bool [vocabulary]; raises InvalidInput where llguidance gives up and allows only the end token."""
    bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
    if matcher.is_error():
        raise _again(blamed[Verdict.NO_START])
    allowed = np.unpackbits(bits, count=vocabulary, bitorder="little").astype(np.bool_)
    if not allowed.any():
        raise GlmServeError("No token can follow in the answer's grammar.")
    return allowed


def _again(error: InvalidInput) -> InvalidInput:
    """Another one of its kind: each request raises its own."""
    return InvalidInput(error.message, error.field)


def _make_way() -> None:
    """Lets the threads of decode steps run before this one."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _MASK_NICENESS)
