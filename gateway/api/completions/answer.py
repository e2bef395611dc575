"""Writes an answer as an OpenAI text completion, whole or in pieces."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from gateway.api.error_handlers import openai_problem
from gateway.api.logprobs import spelled
from gateway.api.usage import token_counts
from gateway.chat.generation import Answer, Piece
from gateway.chat.service import Prepared
from gateway.schemas.openai import Wanted
from gateway.streaming import sse
from gateway.streaming.pace import Pace
from gateway.triton.backend import Ranked
from glmserve.errors import GlmServeError
from glmserve.model.tokenizer import Tokenizer

_DONE = "data: [DONE]\n\n"


class TextShape:
    """The `text_completion` of one request, or its pieces; `echoed` is the text that stands before each answer."""

    def __init__(
        self,
        model: str,
        build: str,
        request_id: str,
        tokenizer: Tokenizer,
        echoed: tuple[str, ...],
        wanted: Wanted,
    ) -> None:
        self._head = {
            "id": f"cmpl-{request_id}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": build,
        }
        self._tokenizer = tokenizer
        self._echoed = echoed
        self._wanted = wanted
        self._pace = Pace()
        self._prompt_tokens = 0
        self._tokens = 0  # that were streamed so far
        self._written = [0] * len(echoed)  # characters of each answer, for text_offset

    def whole(self, prepared: Prepared, answer: Answer) -> dict[str, Any]:
        ids = self._prompts_of_choices(prepared)
        choices = [
            {**self._choice(i, self._echoed[i] + each.content, each.logprobs, each, each.tokens), **ids[i]}
            for i, each in enumerate(answer.answers)
        ]
        return {**self._head, "choices": choices, "usage": _usage(prepared, answer), "timings": answer.timings}

    def start(self, prepared: Prepared) -> Iterator[str]:
        self._prompt_tokens = prepared.prompt_tokens
        ids = self._prompts_of_choices(prepared)
        for i, text in enumerate(self._echoed):
            if text or ids[i]:
                yield self._event(i, text, (), beside=ids[i])

    def piece(self, piece: Piece) -> Iterator[str]:
        self._pace.add(piece)
        pace = {"timings": self._pace.timings(self._prompt_tokens)} if self._wanted.timings else {}
        for each in piece.pieces:
            self._tokens += len(each.tokens)
            if each.content or each.logprobs or (self._wanted.token_ids and each.tokens):
                yield self._event(each.index, each.content, each.logprobs, tokens=each.tokens, pace=pace)

    def end(self, prepared: Prepared, answer: Answer) -> Iterator[str]:
        for i, each in enumerate(answer.answers):
            yield self._event(i, "", (), each)
        if self._wanted.usage:
            usage: dict[str, Any] = {"choices": [], "usage": _usage(prepared, answer), "timings": answer.timings}
            yield sse.data({**self._head, **usage})
        yield _DONE

    def failure(self, error: GlmServeError) -> Iterator[str]:
        yield sse.data(openai_problem(error))
        yield _DONE

    def _event(
        self,
        index: int,
        text: str,
        logprobs: tuple[Ranked, ...],
        ended: Answer | None = None,
        tokens: tuple[int, ...] = (),
        beside: Mapping[str, Any] = MappingProxyType({}),
        pace: Mapping[str, Any] = MappingProxyType({}),
    ) -> str:
        choice = {**self._choice(index, text, logprobs, ended, tokens), **beside}
        event: dict[str, Any] = {**self._head, "choices": [choice], **pace}
        if self._wanted.running_usage:
            event["usage"] = token_counts(self._prompt_tokens, self._tokens)
        elif self._wanted.usage:
            event["usage"] = None
        return sse.data(event)

    def _choice(
        self, index: int, text: str, logprobs: tuple[Ranked, ...], ended: Answer | None, tokens: tuple[int, ...]
    ) -> dict[str, Any]:
        return {
            "index": index,
            "text": text,
            "logprobs": self._logprobs(index, logprobs) if logprobs else None,
            "finish_reason": ended.finish_reason if ended else None,
            "stop_reason": ended.stop_reason if ended else None,
            **({"token_ids": list(tokens)} if self._wanted.token_ids else {}),
            **({"timed_out": True} if ended and ended.timed_out else {}),
        }

    def _prompts_of_choices(self, prepared: Prepared) -> list[dict[str, Any]]:
        """What each choice tells of its prompt: the ids, where they are wanted."""
        prompts = [each.prompt.input_ids for each in (prepared, *prepared.others)]
        answers = len(self._echoed) // len(prompts)
        told = [{"prompt_token_ids": ids.tolist()} if self._wanted.token_ids else {} for ids in prompts]
        return [each for each in told for _ in range(answers)]

    def _logprobs(self, index: int, tokens: tuple[Ranked, ...]) -> dict[str, Any]:
        offsets = []
        for ranked in tokens:
            offsets.append(self._written[index])
            self._written[index] += len(self._spelled(ranked[0][0]))
        return {
            "tokens": [self._spelled(ranked[0][0]) for ranked in tokens],
            "token_logprobs": [ranked[0][1] for ranked in tokens],
            "top_logprobs": [{self._spelled(token): value for token, value in ranked} for ranked in tokens],
            "text_offset": offsets,
        }

    def _spelled(self, token: int) -> str:
        return spelled(token, self._tokenizer, self._wanted.tokens_as_ids)


def _usage(prepared: Prepared, answer: Answer) -> dict[str, Any]:
    return {
        **token_counts(prepared.prompt_tokens, answer.completion_tokens),
        "prompt_tokens_details": {"cached_tokens": answer.cached_tokens},
    }
