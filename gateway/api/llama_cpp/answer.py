"""Writes an answer as llama.cpp's /completion does, whole or in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.api.error_handlers import openai_problem
from gateway.api.llama_cpp.body import Asked
from gateway.chat.generation import Answer, Piece
from gateway.chat.service import Prepared
from gateway.streaming import sse
from gateway.streaming.pace import Pace, of_stage
from gateway.triton.backend import Ranked
from glmserve.errors import GlmServeError
from glmserve.model.tokenizer import Tokenizer

NO_SLOT = -1
"""Of a request, which has no slot of its own."""


class LlamaShape:
    """The answers to one request, each an object of its own; several are a list."""

    def __init__(self, model: str, tokenizer: Tokenizer, asked: Asked) -> None:
        self._model = model
        self._prompt_tokens = 0
        self._tokenizer = tokenizer
        self._asked = asked
        self._answers = asked.conversations[0].answers
        self._pace = Pace()
        self._written = [0] * (len(asked.conversations) * self._answers)  # tokens of each that were streamed

    def whole(self, prepared: Prepared, answer: Answer) -> dict[str, Any] | list[dict[str, Any]]:
        finished = [
            self._chosen(self._finished(i, each, prepared, answer) | {"content": each.content} | self._said(each))
            for i, each in enumerate(answer.answers)
        ]
        return finished[0] if len(finished) == 1 else finished

    def start(self, prepared: Prepared) -> Iterator[str]:
        self._prompt_tokens = prepared.prompt_tokens
        yield from ()

    def piece(self, piece: Piece) -> Iterator[str]:
        self._pace.add(piece)
        timings = {"timings": self._pace.timings(self._prompt_tokens)} if self._asked.shows_timings else {}
        for each in piece.pieces:
            self._written[each.index] += len(each.tokens)
            if each.content or each.tokens:
                yield sse.data(
                    {
                        "index": each.index,
                        "content": each.content,
                        "tokens": list(each.tokens),
                        "stop": False,
                        "id_slot": NO_SLOT,
                        "tokens_predicted": self._written[each.index],
                        **self._probabilities(each.logprobs),
                        **timings,
                    }
                )

    def end(self, prepared: Prepared, answer: Answer) -> Iterator[str]:
        for i, each in enumerate(answer.answers):
            yield sse.data(self._chosen(self._finished(i, each, prepared, answer)))

    def failure(self, error: GlmServeError) -> Iterator[str]:
        yield sse.data(openai_problem(error))

    def _finished(self, index: int, own: Answer, first: Prepared, answer: Answer) -> dict[str, Any]:
        """An answer without its text and tokens."""
        prepared = (first, *first.others)[index // self._answers]
        sampling, raw = prepared.conversation.sampling, prepared.conversation.raw
        read = len(prepared.prompt.input_ids)
        stopped_by = "word" if own.stop_string is not None else "limit" if own.finish_reason == "length" else "eos"
        return {
            "index": index,
            "content": "",
            "tokens": [],
            "id_slot": NO_SLOT,
            "stop": True,
            "model": self._model,
            "tokens_predicted": len(own.tokens),
            "tokens_evaluated": read,
            "tokens_cached": min(read, answer.cached_tokens),
            "generation_settings": {
                "n_predict": prepared.max_tokens,
                "seed": sampling.seed,
                "temperature": sampling.temperature,
                "top_k": sampling.top_k,
                "top_p": sampling.top_p,
                "min_p": sampling.min_p,
                "repeat_penalty": sampling.repetition_penalty,
                "presence_penalty": sampling.presence_penalty,
                "frequency_penalty": sampling.frequency_penalty,
                "n_probs": sampling.top_logprobs,
                "ignore_eos": sampling.ignore_eos,
                "stop": list(prepared.conversation.stop),
                "stream": self._asked.is_stream,
            },
            "prompt": raw if isinstance(raw, str) else self._tokenizer.decode(list(raw or ())),
            "has_new_line": "\n" in own.content,
            "truncated": False,
            "stop_type": stopped_by,
            "stopping_word": own.stop_string or "",
            "timings": _timings(read, len(own.tokens), answer),
        }

    def _said(self, answer: Answer) -> dict[str, Any]:
        """What of a whole answer stands in the pieces of a streamed one."""
        tokens = list(answer.tokens) if self._asked.shows_tokens else []
        return {"tokens": tokens, **self._probabilities(answer.logprobs)}

    def _chosen(self, told: dict[str, Any]) -> dict[str, Any]:
        """Those of its fields that the request names, if it does; a slash leads into an object."""
        if not self._asked.fields:
            return told
        flat = told | {
            f"{name}/{inner}": value
            for name, part in told.items()
            if isinstance(part, dict)
            for inner, value in part.items()
        }
        return {name: flat[name] for name in self._asked.fields if name in flat}

    def _probabilities(self, tokens: tuple[Ranked, ...]) -> dict[str, Any]:
        if not tokens:
            return {}
        told = [
            {**self._entry(*ranked[0]), "top_logprobs": [self._entry(*other) for other in ranked[1:]]}
            for ranked in tokens
        ]
        return {"completion_probabilities": told}

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        spelled = self._tokenizer.token_bytes(token)
        return {"id": token, "token": spelled.decode("utf-8", "replace"), "bytes": list(spelled), "logprob": logprob}


def _timings(read: int, said: int, answer: Answer) -> dict[str, float]:
    """What the prompts and answers of a request took together, and the counts of one."""
    told = answer.timings or {}
    first_ms = told.get("prefill_ms", told.get("first_token_ms", 0.0))
    rest_ms = told.get("decode_ms", told.get("total_ms", 0.0) - first_ms)
    fresh = max(0, read - answer.cached_tokens)
    return {"cache_n": read - fresh, **of_stage("prompt", fresh, first_ms), **of_stage("predicted", said, rest_ms)}
