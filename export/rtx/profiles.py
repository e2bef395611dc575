"""The shapes that engines are built for: how many rows, tokens and patches each input may have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from export.graph.vision_profile import Shape
from glmserve.model.config import TextModel

Sizes = dict[str, tuple[int, int, int]]
"""The least, the usual and the largest of each size that a graph names by a word."""


@dataclass(frozen=True)
class EngineSizes:
    """What a decoder's engines can hold: `rows` requests that decode together, `context` tokens in a row of KV, and
    `chunk_tokens` prompt tokens in a step."""

    rows: int
    context: int
    chunk_tokens: int

    def cut_to(self, text: TextModel) -> EngineSizes:
        """The same with no more context than the checkpoint was made for."""
        return EngineSizes(self.rows, min(self.context, text.max_positions), self.chunk_tokens)


MOST_DRAFT_TOKENS = 32
"""GLM_ENGINE_DRAFT_TOKENS takes no more."""
_LEAST_PENALTIES = 1024


def decoder_sizes(sizes: EngineSizes, text: TextModel) -> Sizes:
    """The sizes of a decoder's steps by the words in its graph: from one decoded row, with an empty prefill group, to
    as many of everything as there can be."""
    rows, chunk = sizes.rows, max(sizes.chunk_tokens, 1 + MOST_DRAFT_TOKENS)
    usual = (rows + 1) // 2
    decoded, chunks = (1, usual, rows), (0, 1, rows)
    drawn = rows + MOST_DRAFT_TOKENS
    penalties = max(_LEAST_PENALTIES, drawn * min(sizes.context, text.vocabulary))
    extras = 1 << (drawn - 1).bit_length()  # captured steps take as many as a power of two
    return {
        "T": (1, usual + chunk, rows + chunk),
        "N": (1, usual, drawn),
        "D": decoded,
        "decoded_rows": decoded,
        "C": chunks,
        "chunk_rows": chunks,
        "S": (1, chunk, chunk),
        "M": (1, 1, chunk + 1),
        "P": (0, 0, penalties),
        "R": (0, 0, extras),
        "Q": (0, 0, extras),
    }


def shapes_of(names: Sequence[str], fixed: Sequence[int], sizes: Mapping[str, Any]) -> tuple[Shape, Shape, Shape]:
    """An input's least, usual and largest shape: a size that is not `fixed` (-1) has a name."""
    least, usual, most = (
        tuple(size if size >= 0 else sizes[name][which] for name, size in zip(names, fixed, strict=True))
        for which in range(3)
    )
    return least, usual, most
