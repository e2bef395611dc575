"""The checkpoint as transformers runs it: the truth a build is held against. Needs torch and transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.utils import logging

from export.checkpoint.formats.opened import open_weights
from export.checkpoint.formats.published import PublishedWeights
from export.errors import MissingPackage
from export.verify.candidate import Shown
from export.verify.reference_processor import ReferenceProcessor
from glmserve.model.image_processor import Grid


class Reference:
    """The whole model in fp32 on the CPU, behind its own processor."""

    def __init__(self, checkpoint: Path, adapters: Sequence[Path] = ()) -> None:
        """The checkpoint with LoRA adapters merged by peft, one after the other; raises MissingPackage without peft."""
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self._model: Any = _model(checkpoint).eval()
        for adapter in adapters:
            self._model = _merged(self._model, adapter)
        self.processor = ReferenceProcessor(checkpoint)
        self._image_token_id: int = self._model.config.image_token_id

    def positions(self, input_ids: np.ndarray, grids: list[Grid]) -> np.ndarray:
        """M-RoPE ids i64 [3, tokens]."""
        ids = torch.from_numpy(input_ids)[None]
        found, _ = self._model.model.get_rope_index(
            ids, self._kinds(ids), image_grid_thw=_grid_thw(grids) if grids else None
        )
        return np.asarray(found[:, 0])

    @torch.no_grad()
    def features(self, pixels: np.ndarray, grids: list[Grid]) -> np.ndarray:
        """Features f32 [image tokens, hidden] of all images."""
        found = self._model.model.visual(torch.from_numpy(pixels), grid_thw=_grid_thw(grids))
        return np.asarray(found.pooler_output)

    @torch.no_grad()
    def logits(self, input_ids: np.ndarray, images: list[Shown]) -> np.ndarray:
        """Logits f32 [tokens, vocabulary] at every token."""
        self._model.model.rope_deltas = None
        return np.asarray(self._model(**self._inputs(input_ids, images)).logits[0])

    @torch.no_grad()
    def answer(
        self, input_ids: np.ndarray, images: list[Shown], max_tokens: int, repetition_penalty: float = 1.0
    ) -> list[int]:
        """Greedy new tokens as `generate` returns them, an ending eos token included."""
        self._model.model.rope_deltas = None
        inputs = self._inputs(input_ids, images)
        out = self._model.generate(
            **inputs, max_new_tokens=max_tokens, do_sample=False, repetition_penalty=repetition_penalty
        )
        return [int(token) for token in out[0, len(input_ids) :]]

    def _inputs(self, input_ids: np.ndarray, images: list[Shown]) -> dict[str, torch.Tensor]:
        ids = torch.from_numpy(input_ids)[None]
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": self._kinds(ids)}
        if images:
            pixels, grids = self.processor.pixels(images)
            inputs |= {"pixel_values": torch.from_numpy(pixels), "image_grid_thw": _grid_thw(grids)}
        return inputs

    def _kinds(self, ids: torch.Tensor) -> torch.Tensor:
        return (ids == self._image_token_id).int()


def _model(checkpoint: Path) -> Any:
    """The model with the checkpoint's weights; those that are published in codes as the numbers that these stand for,
    which need no library of their format."""
    library: Any = AutoModelForImageTextToText
    weights = open_weights(checkpoint)
    if not isinstance(weights, PublishedWeights):
        return library.from_pretrained(checkpoint, dtype=torch.float32)
    config = AutoConfig.from_pretrained(checkpoint)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = library.from_config(config, dtype=torch.float32)
    for name, parameter in model.named_parameters():
        parameter.data = torch.from_numpy(weights.read(name, tuple(parameter.shape)).astype(np.float32))
    return model


def _merged(model: Any, adapter: Path) -> Any:
    try:
        from peft import PeftModel
    except ImportError:
        raise MissingPackage("verify has peft merge the adapters: pip install -r requirements/test.txt.") from None
    loader: Any = PeftModel
    return loader.from_pretrained(model, adapter).merge_and_unload().eval()


def _grid_thw(grids: list[Grid]) -> torch.Tensor:
    return torch.tensor([[1, grid.rows, grid.columns] for grid in grids])
