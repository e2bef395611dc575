"""Random weights for a checkpoint of any size, written in shards, a few rows at a time."""

from __future__ import annotations

import json
import math
import tomllib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from glmserve.model.config import Checkpoint

HEAD = "lm_head.weight"
_HEAD_SCALE = 4.0  # logits of this deviation: one token is clearly the likeliest
_BIAS_SCALE = 0.1
_TABLE_SCALES = {"embed_tokens.weight": 1.0, "position_embedding.weight": 0.5}
_DRAWN_AT_ONCE = 1 << 24
_BYTES = 2  # bf16
_TENSORS: dict[str, dict[str, list[str]]] = tomllib.loads(Path(__file__).with_name("tensors.toml").read_text("utf-8"))


@dataclass(frozen=True)
class Weight:
    """One tensor to write."""

    name: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        return _BYTES * math.prod(self.shape)

    @property
    def scale(self) -> float:
        """The deviation of its values; 0 for a norm, whose values are all 1."""
        for table, scale in _TABLE_SCALES.items():
            if self.name.endswith(table):
                return scale
        if len(self.shape) == 1:
            return _BIAS_SCALE if self.name.endswith(".bias") else 0.0
        return (_HEAD_SCALE if self.name == HEAD else 1.0) / math.sqrt(math.prod(self.shape[1:]))


def weights_of(checkpoint: Checkpoint) -> list[Weight]:
    """Every tensor that a checkpoint of these sizes holds."""
    text, vision = checkpoint.text, checkpoint.vision
    q, kv = text.heads * text.head_dim, text.kv_heads * text.head_dim
    of_text = asdict(text) | {"q": q, "kv": kv, "two_ffn": 2 * text.ffn}
    of_vision = asdict(vision) | {"colours": 3, "places": vision.table_side**2, "qkv": 3 * vision.hidden}
    weights = [] if text.tied_head else [Weight(HEAD, (text.vocabulary, text.hidden))]
    weights += _table("text", "model.language_model", of_text)
    for index in range(text.layers):
        weights += _table("text_layer", f"model.language_model.layers.{index}", of_text)
    weights += _table("vision", "model.visual", of_vision)
    for index in range(vision.depth):
        block = _table("vision_block", f"model.visual.blocks.{index}", of_vision)
        weights += [weight for weight in block if vision.attention_bias or not weight.name.endswith("qkv.bias")]
    return weights


def _table(name: str, prefix: str, sizes: dict[str, Any]) -> list[Weight]:
    return [Weight(f"{prefix}.{key}", tuple(sizes[size] for size in shape)) for key, shape in _TENSORS[name].items()]


def write_weights(folder: Path, weights: Sequence[Weight], silent: np.ndarray, seed: int, shards: int = 1) -> None:
    """bf16 safetensors, in one file or in shards of about one size with their index.

    Rows of the head where `silent` bool [vocabulary] is true are zero.
    """
    total = sum(weight.size_bytes for weight in weights)
    names = [f"model-{number + 1:05d}-of-{shards:05d}.safetensors" for number in range(shards)]
    files: dict[str, list[Weight]] = {name: [] for name in (names if shards > 1 else ["model.safetensors"])}
    places, before = {}, 0
    for weight in weights:
        places[weight.name] = list(files)[before * shards // total]  # cut where each has its share of the bytes
        files[places[weight.name]].append(weight)
        before += weight.size_bytes
    if shards > 1:
        index = {"metadata": {"total_size": total}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), "utf-8")
    for name, group in files.items():
        with (folder / name).open("wb") as file:
            file.write(header_of(group))
            for weight in group:
                for values in _draw(weight, silent, seed):
                    file.write(values.astype(ml_dtypes.bfloat16).tobytes())


def header_of(weights: Sequence[Weight]) -> bytes:
    """The header of a safetensors file that holds these tensors in bf16 and in this order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for weight in weights:
        begin, end = end, end + weight.size_bytes
        header[weight.name] = {"dtype": "BF16", "shape": weight.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _draw(weight: Weight, silent: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """A tensor's values f32, some rows at a time; its random numbers do not depend on the other tensors."""
    at_once = max(1, _DRAWN_AT_ONCE // math.prod(weight.shape[1:]))
    stream = np.random.default_rng([seed, zlib.crc32(weight.name.encode())])
    for first in range(0, weight.shape[0], at_once):
        shape = (min(at_once, weight.shape[0] - first), *weight.shape[1:])
        if not weight.scale:
            yield np.ones(shape, np.float32)
            continue
        values = stream.standard_normal(shape, np.float32) * np.float32(weight.scale)
        if weight.name == HEAD:
            values[silent[first : first + len(values)]] = 0
        yield values
