"""What transformers makes of a conversation before its model runs: pixels and prompt tokens. Needs transformers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image
from transformers import AutoConfig, AutoTokenizer
from transformers.models.glm46v.image_processing_pil_glm46v import Glm46VImageProcessorPil
from transformers.models.glm46v.processing_glm46v import Glm46VProcessor

from export.verify.candidate import Shown
from export.verify.cases import Case
from glmserve.model.chat_template import Message, VideoPart
from glmserve.model.image_processor import Grid


class ReferenceProcessor:
    """transformers' own image processor, chat template and tokenizer of a checkpoint."""

    def __init__(self, checkpoint: Path) -> None:
        self._images: Any = Glm46VImageProcessorPil.from_pretrained(checkpoint)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
        config: Any = AutoConfig.from_pretrained(checkpoint)
        self._image_token_id: int = config.image_token_id
        self._merge_size: int = config.vision_config.spatial_merge_size
        self._frames: int = config.vision_config.temporal_patch_size

    def pixels(self, images: list[Shown]) -> tuple[np.ndarray, list[Grid]]:
        """Normalised patches f32 [patches, 3 * frames * patch * patch] and the images' grids."""
        read = [self._shown(image) for image in images]
        return np.concatenate([pixels for pixels, _ in read]), [grid for _, grid in read]

    def _shown(self, image: Shown) -> tuple[np.ndarray, Grid]:
        """Of two frames, each read as a still, which stands for twice the same: the first's half and the second's."""
        frames = [image] if isinstance(image, Image.Image) else list(image)
        read = self._images(images=[frame.convert("RGB") for frame in frames], return_tensors="np")
        _, rows, columns = (int(size) for size in read["image_grid_thw"][0])
        values = read["pixel_values"].reshape(len(frames), rows * columns, 3, self._frames, -1)
        halves = np.stack([values[min(i, len(frames) - 1), :, :, i] for i in range(self._frames)], axis=2)
        return halves.reshape(rows * columns, -1), Grid(rows, columns, len(frames))

    def input_ids(self, case: Case, grids: list[Grid]) -> np.ndarray:
        """The prompt's tokens i64 [tokens], each image's token repeated as often as its grid has features."""
        text = self._tokenizer.apply_chat_template(
            [{"role": message.role, "content": _content(message)} for message in case.messages],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=case.thinking,
        )
        videos = [part for message in case.messages for part in message.parts if isinstance(part, VideoPart)]
        for video in videos:
            text = text.replace("<|video|>", "".join(map(_frame, video.seconds)), 1)
        sizes = iter(grid.tokens(self._merge_size) for grid in grids)
        expanded: list[int] = []
        for token in self._tokenizer.encode(text, add_special_tokens=False):
            expanded += [token] * (next(sizes) if token == self._image_token_id else 1)
        return np.asarray(expanded, np.int64)


def _content(message: Message) -> str | list[dict[str, Any]]:
    if all(isinstance(part, str) for part in message.parts):
        return "".join(map(str, message.parts))
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "video" if isinstance(part, VideoPart) else "image"}
        for part in message.parts
    ]


def _frame(second: float) -> str:
    """transformers' text of two frames, with one token of theirs."""
    stand_in: Any = SimpleNamespace(image_token="<|image|>")
    return str(Glm46VProcessor.replace_frame_token_id(stand_in, second))
