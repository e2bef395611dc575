"""Joins the messages of one answer into the single response that plain HTTP can carry."""

from __future__ import annotations

import numpy as np

from glmserve.contract import CHOICES, LOGPROB_IDS, LOGPROB_VALUES, TOKENS

Tensors = dict[str, np.ndarray]
_GROWING = (TOKENS.name, CHOICES.name, LOGPROB_IDS.name, LOGPROB_VALUES.name)


def joined(messages: list[Tensors]) -> Tensors:
    """Concatenates the tensors that grow with each message; of the others, keeps the last.

    Messages are in the order they came, each as `contract.DECODER_OUTPUTS` describes it.
    """
    whole: Tensors = {}
    for message in messages:
        whole |= {name: array for name, array in message.items() if name not in _GROWING}
    for name in _GROWING:
        parts = [message[name] for message in messages if name in message and len(message[name])]
        if parts:
            whole[name] = np.concatenate(parts)
    whole.setdefault(TOKENS.name, np.empty(0, TOKENS.dtype))
    return whole
