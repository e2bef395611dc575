"""transformers' own layers, one loaded at a time with the checkpoint's weights. Needs torch and transformers."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig
from transformers.models.glm4v.modeling_glm4v import Glm4vModel, Glm4vTextModel, Glm4vVisionModel

from export.checkpoint.weights import Weights
from export.verify.reference_processor import ReferenceProcessor
from glmserve.model.image_processor import Grid

_TEXT, _VISION = "model.language_model", "model.visual"
_ROWS_AT_ONCE = 8192


class ReferenceLayers:
    """The checkpoint's models with one layer each, which takes the weights, in fp32, of the layer that is asked for.

    Arrays in and out are f32 without a batch axis: [tokens, hidden], [patches, hidden].
    """

    def __init__(self, checkpoint: Path, weights: Weights) -> None:
        self._weights = weights
        config: Any = AutoConfig.from_pretrained(checkpoint)
        self._config = config
        self.processor = ReferenceProcessor(checkpoint)
        text, vision = deepcopy(config.text_config), deepcopy(config.vision_config)
        text.num_hidden_layers, text.vocab_size, text.pad_token_id = 1, 1, 0  # words are looked up by `words`
        vision.depth = 1
        of_text: Any = Glm4vTextModel
        of_vision: Any = Glm4vVisionModel
        self._text: Any = of_text(text).eval()
        self._vision: Any = of_vision(vision).eval()
        with torch.device("meta"):
            self._positions: Any = Glm4vModel(config)

    def positions(self, input_ids: np.ndarray, grids: list[Grid]) -> np.ndarray:
        """M-RoPE ids i64 [3, tokens]."""
        ids = torch.from_numpy(input_ids)[None]
        grid = torch.tensor([[1, one.rows, one.columns] for one in grids]) if grids else None
        kinds = (ids == self._config.image_token_id).int()
        return np.asarray(self._positions.get_rope_index(ids, kinds, image_grid_thw=grid)[0][:, 0])

    def words(self, input_ids: np.ndarray) -> np.ndarray:
        """The embeddings of tokens."""
        rows = [
            self._weights.read_rows(f"{_TEXT}.embed_tokens.weight", token, token + 1) for token in input_ids.tolist()
        ]
        found: np.ndarray = np.concatenate(rows).astype(np.float32)
        return found

    def load_text_layer(self, index: int) -> None:
        self._load(self._text.layers[0], f"{_TEXT}.layers.{index}")

    @torch.no_grad()
    def text_layer(self, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """The output of the decoder layer loaded last, on a prompt's states and its M-RoPE ids i64 [3, tokens]."""
        seen: list[torch.Tensor] = []
        hook = self._text.layers[0].register_forward_hook(lambda _layer, _inputs, output: seen.append(output))
        try:
            self._text(
                inputs_embeds=torch.from_numpy(x)[None],
                position_ids=torch.from_numpy(positions)[:, None],
                use_cache=False,
            )
        finally:
            hook.remove()
        return np.asarray(seen[0][0])

    @torch.no_grad()
    def logits(self, last: np.ndarray) -> np.ndarray:
        """Logits f32 [vocabulary] of one state [hidden] behind the last layer; the head is multiplied in parts."""
        self._load(self._text.norm, f"{_TEXT}.norm")
        normed = np.asarray(self._text.norm(torch.from_numpy(last)))
        name = f"{_TEXT}.embed_tokens.weight" if self._config.tie_word_embeddings else "lm_head.weight"
        parts = []
        size = self._config.text_config.vocab_size
        for begin in range(0, size, _ROWS_AT_ONCE):
            rows = self._weights.read_rows(name, begin, min(begin + _ROWS_AT_ONCE, size))
            parts.append(rows.astype(np.float32) @ normed)
        return np.concatenate(parts)

    def forget_vision(self) -> None:
        """Frees the image encoder, of which nothing is asked any more."""
        self._vision = None

    def load_vision_ends(self) -> None:
        """What stands before the blocks and behind them."""
        for name, module in self._vision.named_children():
            if name != "blocks":
                self._load(module, f"{_VISION}.{name}")

    def load_vision_block(self, index: int) -> None:
        self._load(self._vision.blocks[0], f"{_VISION}.blocks.{index}")

    def vision_entry(self, pixels: np.ndarray, grid: Grid) -> np.ndarray:
        """What goes into the first block."""
        return self._through_vision(pixels, grid, lambda x, _: x)[0]

    def vision_block(self, x: np.ndarray, pixels: np.ndarray, grid: Grid) -> np.ndarray:
        """The output of the block loaded last, on its input x."""
        return self._through_vision(pixels, grid, lambda _, run: run(torch.from_numpy(x)))[0]

    def features(self, x: np.ndarray, pixels: np.ndarray, grid: Grid) -> np.ndarray:
        """The image's features [image tokens, hidden] from the last block's output x."""
        return self._through_vision(pixels, grid, lambda _, __: torch.from_numpy(x))[1]

    @torch.no_grad()
    def _through_vision(
        self, pixels: np.ndarray, grid: Grid, block: Callable[[torch.Tensor, Any], torch.Tensor]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The encoder on an image with `block` in its only block's place: what that gave, and the features.

        `block` takes its input, and the block itself as a function of another input.
        """
        module = self._vision.blocks[0]
        own = module.forward
        seen: list[torch.Tensor] = []

        def instead(hidden_states: torch.Tensor, **others: Any) -> torch.Tensor:
            seen.append(block(hidden_states, lambda x: own(x, **others)))
            return seen[0]

        module.forward = instead
        try:
            size = torch.tensor([[1, grid.rows, grid.columns]])
            found = self._vision(torch.from_numpy(pixels), grid_thw=size)
        finally:
            module.forward = own
        return np.asarray(seen[0]), np.asarray(found.pooler_output)

    def _load(self, module: Any, prefix: str) -> None:
        """Gives a module the checkpoint's weights, and drops those it had."""
        state = {}
        for name, tensor in module.state_dict().items():
            array = self._weights.read(f"{prefix}.{name}", tuple(tensor.shape))
            state[name] = torch.from_numpy(array.astype(np.float32))
        module.load_state_dict(state, assign=True)
