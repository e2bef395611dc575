"""Structured outputs: llguidance computes which tokens a JSON Schema allows next, on two threads of their own."""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from llguidance import LLMatcher, LLTokenizer

from glmserve.errors import BadArtifact, GlmServeError, InvalidInput
from glmserve.limits import MAX_GRAMMAR_BYTES

_FIELD = "response_format"
_THREADS = 2


class GrammarCompiler:
    """Makes grammars for one tokenizer; safe to share between threads."""

    def __init__(self, tokenizer: Path, vocabulary: int, eos_token_ids: tuple[int, ...]) -> None:
        """`tokenizer` is a `tokenizer.json`; takes a second or two for a large one. Raises BadArtifact."""
        try:
            self._tokenizer = LLTokenizer(str(tokenizer), n_vocab=vocabulary, eos_token=list(eos_token_ids))
        except Exception as error:  # llguidance raises what its tokenizer library does
            raise BadArtifact("tokenizer.json cannot be used for structured answers.") from error
        self._vocabulary = vocabulary
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="grammars")

    def compile(self, schema: bytes) -> SchemaGrammar:
        """The grammar of a JSON Schema in UTF-8; raises InvalidInput when it is invalid or too complex."""
        if len(schema) > MAX_GRAMMAR_BYTES:
            raise InvalidInput(f"The JSON Schema holds more than {MAX_GRAMMAR_BYTES} bytes.", _FIELD)
        try:
            document = json.loads(schema)
        except (ValueError, RecursionError):
            raise InvalidInput("The JSON Schema is not valid JSON.", _FIELD) from None
        if not isinstance(document, dict):
            raise InvalidInput("The JSON Schema must be a JSON object.", _FIELD)
        document.pop("x-guidance", None)  # the library's own switches are not for users
        try:
            matcher = LLMatcher(self._tokenizer, LLMatcher.grammar_from_json_schema(document), log_level=0)
        except ValueError:  # a lone surrogate, or a number of hundreds of digits
            raise InvalidInput("The JSON Schema holds a text or a number that a grammar cannot hold.", _FIELD) from None
        if matcher.is_error():
            raise InvalidInput("The JSON Schema cannot be turned into a grammar, or nothing can match it.", _FIELD)
        return SchemaGrammar(matcher, self._vocabulary, self._pool)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class SchemaGrammar:
    """The `Grammar` of one answer, from its first token to its last."""

    def __init__(self, matcher: LLMatcher, vocabulary: int, pool: ThreadPoolExecutor) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._pool = pool
        self._first = pool.submit(self._mask)

    def first_mask(self) -> Future[np.ndarray]:
        return self._first

    def next_mask(self, token: int) -> Future[np.ndarray]:
        return self._pool.submit(self._advance, token)

    def _advance(self, token: int) -> np.ndarray:
        if not self._matcher.consume_token(token):
            raise GlmServeError("The answer left its grammar.")
        return self._mask()

    def _mask(self) -> np.ndarray:
        """bool [vocabulary]; raises InvalidInput where llguidance gives up and allows only the end token."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise InvalidInput("The JSON Schema refers to itself without end, or its patterns are too large.", _FIELD)
        allowed = np.unpackbits(bits, count=self._vocabulary, bitorder="little").astype(np.bool_)
        if not allowed.any():
            raise GlmServeError("No token can follow in the answer's grammar.")
        return allowed
