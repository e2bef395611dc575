"""Random weights for a checkpoint of any size, written in shards, a few rows at a time."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from glmserve.model.config import Checkpoint, TextModel, VisionModel

HEAD = "lm_head.weight"
_HEAD_SCALE = 4.0  # logits of this deviation: one token is clearly the likeliest
_BIAS_SCALE = 0.1
_DRAWN_AT_ONCE = 1 << 24
_BYTES = 2  # bf16


@dataclass(frozen=True)
class Weight:
    """One tensor to write: normally distributed with a deviation of `scale`, or all ones where that is None."""

    name: str
    shape: tuple[int, ...]
    scale: float | None

    @property
    def size_bytes(self) -> int:
        return _BYTES * math.prod(self.shape)


def weights_of(checkpoint: Checkpoint) -> Iterator[Weight]:
    """Every tensor that a checkpoint of these sizes holds."""
    text = checkpoint.text
    if not text.tied_head:
        yield Weight(HEAD, (text.vocabulary, text.hidden), _HEAD_SCALE * text.hidden**-0.5)
    yield Weight("model.language_model.embed_tokens.weight", (text.vocabulary, text.hidden), 1.0)
    yield _norm("model.language_model.norm", text.hidden)
    for index in range(text.layers):
        yield from _text_layer(text, f"model.language_model.layers.{index}")
    yield from _vision(checkpoint.vision, "model.visual")


def write_weights(folder: Path, weights: Sequence[Weight], silent: np.ndarray, seed: int, shards: int = 1) -> None:
    """bf16 safetensors, in one file or in shards of about one size with their index.

    Rows of the head where `silent` bool [vocabulary] is true are zero.
    """
    groups = _shared_out(weights, shards)
    names = ["model.safetensors"]
    if shards > 1:
        names = [f"model-{number + 1:05d}-of-{shards:05d}.safetensors" for number in range(shards)]
        places = {weight.name: name for name, group in zip(names, groups, strict=True) for weight in group}
        index = {"metadata": {"total_size": sum(weight.size_bytes for weight in weights)}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), "utf-8")
    for name, group in zip(names, groups, strict=True):
        with (folder / name).open("wb") as file:
            _write_file(file, group, silent, seed)


def _shared_out(weights: Sequence[Weight], shards: int) -> list[list[Weight]]:
    """The weights in their order, cut where each shard has its share of the bytes."""
    total, before = sum(weight.size_bytes for weight in weights), 0
    groups: list[list[Weight]] = [[] for _ in range(shards)]
    for weight in weights:
        groups[before * shards // total].append(weight)
        before += weight.size_bytes
    return groups


def _write_file(file: BinaryIO, weights: Sequence[Weight], silent: np.ndarray, seed: int) -> None:
    """One safetensors file: a header that names every tensor, then their bytes."""
    file.write(header_of(weights))
    for weight in weights:
        for first_row, values in _draw(weight, seed):
            if weight.name == HEAD:
                values[silent[first_row : first_row + len(values)]] = 0
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


def _draw(weight: Weight, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """A tensor's values f32, some rows at a time, each part with the number of its first row. Every tensor has random
    numbers of its own, which do not depend on the other tensors."""
    row = weight.shape[1:]
    at_once = max(1, _DRAWN_AT_ONCE // max(1, math.prod(row)))
    stream = np.random.default_rng([seed, zlib.crc32(weight.name.encode())])
    for first in range(0, weight.shape[0], at_once):
        shape = (min(at_once, weight.shape[0] - first), *row)
        if weight.scale is None:
            yield first, np.ones(shape, np.float32)
        else:
            yield first, stream.standard_normal(shape, np.float32) * np.float32(weight.scale)


def _matrix(name: str, out: int, *fan_in: int) -> Weight:
    return Weight(f"{name}.weight", (out, *fan_in), math.prod(fan_in) ** -0.5)


def _bias(name: str, size: int) -> Weight:
    return Weight(f"{name}.bias", (size,), _BIAS_SCALE)


def _norm(name: str, size: int) -> Weight:
    return Weight(f"{name}.weight", (size,), None)


def _text_layer(text: TextModel, layer: str) -> Iterator[Weight]:
    hidden, q, kv = text.hidden, text.heads * text.head_dim, text.kv_heads * text.head_dim
    for name in ("input_layernorm", "post_attention_layernorm", "post_self_attn_layernorm", "post_mlp_layernorm"):
        yield _norm(f"{layer}.{name}", hidden)
    for name, size in (("q_proj", q), ("k_proj", kv), ("v_proj", kv)):
        yield _matrix(f"{layer}.self_attn.{name}", size, hidden)
        yield _bias(f"{layer}.self_attn.{name}", size)
    yield _matrix(f"{layer}.self_attn.o_proj", hidden, q)
    yield _matrix(f"{layer}.mlp.gate_up_proj", 2 * text.ffn, hidden)
    yield _matrix(f"{layer}.mlp.down_proj", hidden, text.ffn)


def _vision(vision: VisionModel, prefix: str) -> Iterator[Weight]:
    hidden, out, patch, merge = vision.hidden, vision.out_hidden, vision.patch_size, vision.merge_size
    yield _matrix(f"{prefix}.patch_embed.proj", hidden, 3, vision.temporal_patch_size, patch, patch)
    yield _bias(f"{prefix}.patch_embed.proj", hidden)
    yield Weight(f"{prefix}.embeddings.position_embedding.weight", (vision.table_side**2, hidden), 0.5)
    yield _norm(f"{prefix}.post_conv_layernorm", hidden)
    yield _norm(f"{prefix}.post_layernorm", hidden)
    for index in range(vision.depth):
        block = f"{prefix}.blocks.{index}"
        yield _norm(f"{block}.norm1", hidden)
        yield _norm(f"{block}.norm2", hidden)
        yield _matrix(f"{block}.attn.qkv", 3 * hidden, hidden)
        if vision.attention_bias:
            yield _bias(f"{block}.attn.qkv", 3 * hidden)
        yield _matrix(f"{block}.attn.proj", hidden, hidden)
        yield _matrix(f"{block}.mlp.gate_proj", out, hidden)
        yield _matrix(f"{block}.mlp.up_proj", out, hidden)
        yield _matrix(f"{block}.mlp.down_proj", hidden, out)
    yield _matrix(f"{prefix}.downsample", out, hidden, merge, merge)
    yield _bias(f"{prefix}.downsample", out)
    yield _matrix(f"{prefix}.merger.proj", out, out)
    yield _norm(f"{prefix}.merger.post_projection_norm", out)
    yield _bias(f"{prefix}.merger.post_projection_norm", out)
    yield _matrix(f"{prefix}.merger.gate_proj", vision.ffn, out)
    yield _matrix(f"{prefix}.merger.up_proj", vision.ffn, out)
    yield _matrix(f"{prefix}.merger.down_proj", out, vision.ffn)
