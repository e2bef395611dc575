"""M-RoPE position ids for text and image tokens.

Rule (GLM-4.1V/4.6V): text counts up on all three axes; an image of h x w merged patches that begins at position p
has T = p, H = p + row, W = p + column, and the text after it goes on at p + max(h, w).
"""

from __future__ import annotations

import numpy as np

from glmserve.errors import InvalidInput
from glmserve.model.image_processor import Grid


def mrope_positions(
    input_ids: np.ndarray, image_token_id: int, grids: list[Grid], merge_size: int
) -> tuple[np.ndarray, int]:
    """Position ids i64 [3, tokens] of a prompt and the delta that later tokens add to their index.

    `input_ids` is i64 [tokens] with every image expanded to `grid.tokens(merge_size)` copies of `image_token_id`.
    Raises InvalidInput when placeholders and images do not match.
    """
    tokens = len(input_ids)
    is_image = input_ids == image_token_id
    wanted = sum(grid.tokens(merge_size) for grid in grids)
    if int(is_image.sum()) != wanted:
        raise InvalidInput(f"The prompt holds {int(is_image.sum())} image tokens, its images need {wanted}.", "image")
    positions = np.empty((3, tokens), np.int64)
    index, next_position = 0, 0
    starts = np.flatnonzero(is_image)
    taken = 0
    for grid in grids:
        count = grid.tokens(merge_size)
        start = int(starts[taken])
        if int(starts[taken + count - 1]) != start + count - 1:
            raise InvalidInput("The tokens of one image must stand together.", "image")
        taken += count
        text = start - index
        positions[:, index:start] = next_position + np.arange(text)
        next_position += text
        rows, columns = grid.rows // merge_size, grid.columns // merge_size
        positions[0, start : start + count] = next_position
        positions[1, start : start + count] = next_position + np.repeat(np.arange(rows), columns)
        positions[2, start : start + count] = next_position + np.tile(np.arange(columns), rows)
        next_position += max(rows, columns)
        index = start + count
    positions[:, index:] = next_position + np.arange(tokens - index)
    delta = int(positions.max()) + 1 - tokens if tokens else 0
    return positions, delta
