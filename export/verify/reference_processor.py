"""What transformers makes of a conversation before its model runs: pixels and prompt tokens. Needs transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import AutoConfig, AutoTokenizer
from transformers.models.glm46v.image_processing_pil_glm46v import Glm46VImageProcessorPil

from export.verify.cases import Case
from glmserve.model.chat_template import ImagePart, Message
from glmserve.model.image_processor import Grid


class ReferenceProcessor:
    """transformers' own image processor, chat template and tokenizer of a checkpoint."""

    def __init__(self, checkpoint: Path) -> None:
        self._images: Any = Glm46VImageProcessorPil.from_pretrained(checkpoint)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
        config: Any = AutoConfig.from_pretrained(checkpoint)
        self._image_token_id: int = config.image_token_id
        self._merge_size: int = config.vision_config.spatial_merge_size

    def pixels(self, images: list[Image.Image]) -> tuple[np.ndarray, list[Grid]]:
        """Normalised patches f32 [patches, 3 * frames * patch * patch] and the images' grids."""
        read = self._images(images=[image.convert("RGB") for image in images], return_tensors="np")
        return read["pixel_values"], [Grid(int(rows), int(columns)) for _, rows, columns in read["image_grid_thw"]]

    def input_ids(self, case: Case, grids: list[Grid]) -> np.ndarray:
        """The prompt's tokens i64 [tokens], each image's token repeated as often as its grid has features."""
        text = self._tokenizer.apply_chat_template(
            [{"role": message.role, "content": _content(message)} for message in case.messages],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=case.thinking,
        )
        sizes = iter(grid.tokens(self._merge_size) for grid in grids)
        expanded: list[int] = []
        for token in self._tokenizer.encode(text, add_special_tokens=False):
            expanded += [token] * (next(sizes) if token == self._image_token_id else 1)
        return np.asarray(expanded, np.int64)


def _content(message: Message) -> str | list[dict[str, Any]]:
    if all(isinstance(part, str) for part in message.parts):
        return "".join(map(str, message.parts))
    return [{"type": "image"} if isinstance(p, ImagePart) else {"type": "text", "text": p} for p in message.parts]
