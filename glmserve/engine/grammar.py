"""Structured outputs: llguidance computes which tokens a JSON Schema allows next, on two threads of their own."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from llguidance import LLMatcher

from glmserve.engine.grammar_trial import GrammarTrial, Verdict, load_tokenizer, matcher_of
from glmserve.errors import GlmServeError, InvalidInput, Overloaded
from glmserve.limits import MAX_GRAMMAR_BYTES, MAX_KEPT_GRAMMARS

_FIELD = "response_format"
_THREADS = 2
_MASK_NICENESS = 5  # decode steps, which everybody waits for, come first
_NO_START = "The JSON Schema in response_format refers to itself without end, or its patterns are too large."
_TOO_COMPLEX = (
    "The JSON Schema in response_format is too complex: use fewer alternatives, fewer or simpler patterns, a smaller "
    "multipleOf, at most 1,000 optional properties in an object (more where all are required)."
)
_REASONS = {
    Verdict.UNSUPPORTED: "The JSON Schema in response_format cannot be turned into a grammar, or nothing can match it.",
    Verdict.TOO_COMPLEX: _TOO_COMPLEX,
    Verdict.NO_START: _NO_START,
}


class GrammarCompiler:
    """Makes grammars for one tokenizer; safe to share between threads."""

    def __init__(self, tokenizer: Path, vocabulary: int, eos_token_ids: tuple[int, ...]) -> None:
        """`tokenizer` is a `tokenizer.json`; takes a second or two for a large one. Raises BadArtifact."""
        self._tokenizer = load_tokenizer(tokenizer, vocabulary, eos_token_ids)
        self._vocabulary = vocabulary
        self._trial = GrammarTrial(tokenizer, vocabulary, eos_token_ids)
        self._compiling = threading.Lock()
        self._kept = _KeptGrammars()
        self._pool = ThreadPoolExecutor(_THREADS, "grammars", _make_way)

    def start(self) -> None:
        """Starts the process that tries schemas, so that the first of them finds it ready."""
        self._trial.start()

    def kept(self, schema: bytes, scope: int = 0) -> SchemaGrammar | None:
        """The grammar that this scope has had compiled before; None, at once, when it has to be compiled.

        Raises InvalidInput when it could not be compiled then.
        """
        found = self._kept.find(schema, scope)
        if isinstance(found, InvalidInput):
            raise InvalidInput(found.message, found.field)
        return None if found is None else self._begun(found)

    def compile(self, schema: bytes, scope: int = 0) -> SchemaGrammar:
        """The grammar of a JSON Schema in UTF-8; raises InvalidInput when it is invalid or too complex.

        Other callers wait meanwhile: a second of CPU time at most for each.
        """
        with self._compiling:
            kept = self.kept(schema, scope)
            if kept is not None:
                return kept
            try:
                compiled = self._compiled(schema)
            except InvalidInput as error:
                self._kept.keep(schema, scope, error)
                raise
            self._kept.keep(schema, scope, compiled)
            return self._begun(compiled)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._trial.close()

    def _begun(self, compiled: _Compiled) -> SchemaGrammar:
        return SchemaGrammar(compiled.copy(), compiled.first_mask, self._vocabulary, self._pool)

    def _compiled(self, schema: bytes) -> _Compiled:
        grammar = _grammar_text(schema)
        verdict = self._trial.verdict(grammar)
        if verdict == Verdict.LATE:
            raise Overloaded("The service is too busy to compile a JSON Schema.")
        if verdict != Verdict.FITS:
            raise InvalidInput(_REASONS[verdict], _FIELD)
        matcher = matcher_of(self._tokenizer, grammar)
        if matcher.is_error():
            raise GlmServeError("A grammar that fitted on trial could not be compiled.")
        return _Compiled(matcher, _mask(matcher, self._vocabulary), threading.Lock())


def _grammar_text(schema: bytes) -> str:
    """A JSON Schema as llguidance reads it; raises InvalidInput."""
    if len(schema) > MAX_GRAMMAR_BYTES:
        raise InvalidInput(
            f"The JSON Schema in response_format has {len(schema)} bytes; at most {MAX_GRAMMAR_BYTES} are accepted.",
            _FIELD,
        )
    try:
        document = json.loads(schema)
    except (ValueError, RecursionError):
        raise InvalidInput("The JSON Schema in response_format is not valid JSON.", _FIELD) from None
    if not isinstance(document, dict):
        raise InvalidInput("The JSON Schema in response_format must be a JSON object.", _FIELD)
    document.pop("x-guidance", None)  # the library's own switches are not for users
    try:
        return LLMatcher.grammar_from_json_schema(document)
    except (ValueError, RecursionError):  # a lone surrogate, or a number of hundreds of digits
        raise InvalidInput(
            "The JSON Schema in response_format holds a text or a number that a grammar cannot hold.", _FIELD
        ) from None


@dataclass(frozen=True)
class _Compiled:
    """A grammar at its beginning, which is copied for each answer."""

    matcher: LLMatcher
    first_mask: np.ndarray
    copying: threading.Lock

    def copy(self) -> LLMatcher:
        with self.copying:
            return self.matcher.deep_copy()


class _KeptGrammars:
    """The grammars, or the refusals, of the schemas that were used last: each for the scope that sent it only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_digest: OrderedDict[tuple[int, bytes], _Compiled | InvalidInput] = OrderedDict()

    def find(self, schema: bytes, scope: int) -> _Compiled | InvalidInput | None:
        key = _key(schema, scope)
        with self._lock:
            found = self._by_digest.get(key)
            if found is not None:
                self._by_digest.move_to_end(key)
            return found

    def keep(self, schema: bytes, scope: int, result: _Compiled | InvalidInput) -> None:
        with self._lock:
            self._by_digest[_key(schema, scope)] = result
            while len(self._by_digest) > MAX_KEPT_GRAMMARS:
                self._by_digest.popitem(last=False)


def _key(schema: bytes, scope: int) -> tuple[int, bytes]:
    return scope, hashlib.sha256(schema).digest()


class SchemaGrammar:
    """The `Grammar` of one answer, from its first token to its last."""

    def __init__(self, matcher: LLMatcher, first_mask: np.ndarray, vocabulary: int, pool: ThreadPoolExecutor) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._pool = pool
        self._first: Future[np.ndarray] = Future()
        self._first.set_result(first_mask)

    def first_mask(self) -> Future[np.ndarray]:
        return self._first

    def next_mask(self, token: int) -> Future[np.ndarray]:
        return self._pool.submit(self._advance, token)

    def _advance(self, token: int) -> np.ndarray:
        if not self._matcher.consume_token(token):
            if "satisfy the grammar" in self._matcher.get_error():
                raise GlmServeError("The answer left its grammar.")
            raise InvalidInput(_TOO_COMPLEX, _FIELD)
        return _mask(self._matcher, self._vocabulary)


def _mask(matcher: LLMatcher, vocabulary: int) -> np.ndarray:
    """bool [vocabulary]; raises InvalidInput where llguidance gives up and allows only the end token."""
    bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
    if matcher.is_error():
        raise InvalidInput(_NO_START, _FIELD)
    allowed = np.unpackbits(bits, count=vocabulary, bitorder="little").astype(np.bool_)
    if not allowed.any():
        raise GlmServeError("No token can follow in the answer's grammar.")
    return allowed


def _make_way() -> None:
    """Lets the threads of decode steps run before this one."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _MASK_NICENESS)
