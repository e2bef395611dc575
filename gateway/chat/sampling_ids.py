"""Checks the token ids that a request names, and turns the words that it rules out into ids."""

from __future__ import annotations

from dataclasses import replace

from gateway.schemas.conversation import Conversation
from glmserve.errors import InvalidInput
from glmserve.model.tokenizer import Tokenizer


def with_token_ids(conversation: Conversation, tokenizer: Tokenizer, vocabulary: int) -> Conversation:
    """The conversation whose sampling names tokens only; raises InvalidInput for an id outside the vocabulary."""
    sampling = conversation.sampling
    _check("stop_token_ids", sampling.stop_token_ids, vocabulary)
    _check("allowed_token_ids", sampling.allowed_token_ids, vocabulary)
    _check("logit_bias", tuple(token for token, _ in sampling.logit_bias), vocabulary)
    if not conversation.bad_words:
        return conversation
    words = dict.fromkeys(ids for word in conversation.bad_words for ids in _spellings(word, tokenizer))
    return replace(conversation, sampling=replace(sampling, bad_words=tuple(words)))


def _check(field: str, ids: tuple[int, ...], vocabulary: int) -> None:
    wrong = next((each for each in ids if not 0 <= each < vocabulary), None)
    if wrong is not None:
        raise InvalidInput(f"The field {field} holds the token id {wrong}; ids go from 0 to {vocabulary - 1}.", field)


def _spellings(word: str, tokenizer: Tokenizer) -> list[tuple[int, ...]]:
    """The word as a text may begin with it, and as it stands after a blank."""
    bare = word.lstrip()
    return [ids for text in (bare, f" {bare}") if (ids := tuple(tokenizer.encode_plain(text)))]
