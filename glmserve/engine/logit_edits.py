"""What one answer's parameters change about its logits before each draw, from the tokens it has so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from glmserve.sampling_parameters import Sampling

_RULED_OUT = np.float32(-1e30)
"""Finite, because the graph takes what is not for a fault of the model."""
_ROOM = 64


@dataclass(frozen=True)
class Edits:
    """Changes to one row's logits: of each of the different `tokens` i64 [k], the logit is divided by its `penalty` f32
    [k] (multiplied where it is negative), and then its `bias` f32 [k] is added."""

    tokens: np.ndarray
    penalty: np.ndarray
    bias: np.ndarray


def edits_of(
    sampling: Sampling, prompt: np.ndarray, eos_token_ids: frozenset[int], vocabulary: int
) -> LogitEdits | None:
    """The edits of an answer to a prompt i64 [tokens]; None where its parameters change no logits."""
    if not sampling.edits_logits:
        return None
    own = frozenset[int]() if sampling.ignore_eos else eos_token_ids
    return LogitEdits(sampling, prompt, own.union(sampling.stop_token_ids), vocabulary)


class LogitEdits:
    """The edits of one answer, which grow with it; owned by the engine's thread.

    With c(t) for how often the answer has token t, and z(t) for its logit: z is divided by `repetition_penalty`
    (multiplied where negative) if t stands in prompt or answer; then `logit_bias` of t is added, and
    `frequency_penalty` * c(t) and, where c(t) > 0, `presence_penalty` are taken off.
    """

    def __init__(self, sampling: Sampling, prompt: np.ndarray, endings: Iterable[int], vocabulary: int) -> None:
        """`prompt` i64 [tokens]; `endings` are the tokens that end the answer."""
        self._sampling = sampling
        self._endings = sorted(endings)
        self._places: dict[int, int] = {}
        self._tokens = np.zeros(_ROOM, np.int64)
        self._penalty = np.ones(_ROOM, np.float32)
        self._bias = np.zeros(_ROOM, np.float32)
        self._said: set[int] = set()
        self._allowed: np.ndarray | None = None
        if sampling.allowed_token_ids:
            self._allowed = np.zeros(vocabulary, np.bool_)
            self._allowed[list(sampling.allowed_token_ids)] = True
        if sampling.repetition_penalty != 1:
            for token in np.unique(prompt).tolist():
                place = self._place(token)  # first: it may make room, which moves the arrays
                self._penalty[place] = sampling.repetition_penalty
        for token, bias in sampling.logit_bias:
            place = self._place(token)
            self._bias[place] += bias

    def add(self, token: int) -> None:
        """The answer's next token."""
        sampling = self._sampling
        if sampling.repetition_penalty == 1 and not (sampling.frequency_penalty or sampling.presence_penalty):
            return
        place = self._place(token)
        self._penalty[place] = sampling.repetition_penalty
        self._bias[place] -= sampling.frequency_penalty
        if token not in self._said:
            self._said.add(token)
            self._bias[place] -= sampling.presence_penalty

    def after(self, answer: list[int], grammar_mask: np.ndarray | None) -> tuple[Edits | None, np.ndarray | None]:
        """The edits for the token that follows the answer's tokens, and the tokens bool [vocabulary] it may be.

        A grammar comes before other rules: what would leave it no token does not count.
        """
        mask = _narrowed(grammar_mask, self._allowed)
        ruled_out = self._ruled_out(answer)
        if mask is not None and ruled_out:
            narrowed = mask.copy()
            narrowed[ruled_out] = False
            return self._edits([]), narrowed if narrowed.any() else mask
        return self._edits(ruled_out), mask

    def _ruled_out(self, answer: list[int]) -> list[int]:
        sampling = self._sampling
        tokens = set(self._endings if len(answer) < sampling.min_tokens else ())
        for *before, last in sampling.bad_words:
            if answer[len(answer) - len(before) :] == before:
                tokens.add(last)
        return sorted(tokens)

    def _edits(self, ruled_out: list[int]) -> Edits | None:
        count = len(self._places)
        tokens, penalty, bias = self._tokens[:count], self._penalty[:count], self._bias[:count]
        if ruled_out:
            bias = bias.copy()
            bias[[self._places[token] for token in ruled_out if token in self._places]] = _RULED_OUT
            others = [token for token in ruled_out if token not in self._places]
            tokens = np.concatenate([tokens, np.array(others, np.int64)])
            penalty = np.concatenate([penalty, np.ones(len(others), np.float32)])
            bias = np.concatenate([bias, np.full(len(others), _RULED_OUT)])
        return Edits(tokens, penalty, bias) if len(tokens) else None

    def _place(self, token: int) -> int:
        """Where the token's entry is; makes one that changes nothing yet."""
        place = self._places.setdefault(token, len(self._places))
        if place == len(self._tokens):
            self._tokens = np.concatenate([self._tokens, np.zeros_like(self._tokens)])
            self._penalty = np.concatenate([self._penalty, np.ones_like(self._penalty)])
            self._bias = np.concatenate([self._bias, np.zeros_like(self._bias)])
        self._tokens[place] = token
        return place


def _narrowed(grammar_mask: np.ndarray | None, allowed: np.ndarray | None) -> np.ndarray | None:
    if grammar_mask is None or allowed is None:
        return grammar_mask if allowed is None else allowed
    both: np.ndarray = grammar_mask & allowed
    return both if both.any() else grammar_mask
