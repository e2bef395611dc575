"""Writes checkpoints of the real architecture with random weights, large enough to measure and small enough for a CPU.

Tokenizer, template and picture rules are the demo's, pictures being read at the real model's sizes. Rows of the head
that stand for control tokens, for blanks or for parts of a character are zero: their logit is 0, which is never the
largest of hundreds, so a greedy answer never ends by itself and its text says which tokens it has.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from glmserve.checkpoint import PROCESSOR_FILES
from glmserve.tokenizer import Tokenizer

DEMO = Path(__file__).resolve().parents[1] / "demo" / "checkpoint"
_SIDE_FILES = (*PROCESSOR_FILES, "generation_config.json", "tokenizer_config.json")
_LARGEST_PICTURE = 9_633_792  # as the real preprocessor_config.json has it, two frames a still
_HEAD_SCALE = 4.0  # logits of this deviation: one token is clearly the likeliest
_BIAS_SCALE = 0.1


@dataclass(frozen=True)
class Shape:
    """The sizes of a synthetic model; what is not here is the same for all, or the demo's."""

    name: str
    layers: int
    ffn: int
    vision_depth: int
    hidden: int = 1024
    heads: int = 16
    kv_heads: int = 2
    head_dim: int = 64
    vision_hidden: int = 384
    vision_heads: int = 6
    table_side: int = 24
    context: int = 16_384


FULL = Shape("full", layers=17, ffn=3424, vision_depth=6)
"""About 220 million text parameters, the feed-forward as wide beside the hidden size as the real model's."""
THIN = Shape("thin", layers=2, ffn=512, vision_depth=1)
"""As wide as `FULL`, so that the same arrays travel, with little to compute: for measuring what travelling costs."""


def write_checkpoint(shape: Shape, folder: Path, seed: int = 0) -> Path:
    """The Hugging Face folder of a shape, with bf16 weights, in a folder that must not exist yet."""
    folder.mkdir(parents=True)
    for name in _SIDE_FILES:
        shutil.copyfile(DEMO / name, folder / name)
    config = _config(shape)
    (folder / "config.json").write_text(json.dumps(config, indent=1), "utf-8")
    processor = json.loads((DEMO / "preprocessor_config.json").read_text("utf-8"))
    processor["size"]["longest_edge"] = _LARGEST_PICTURE
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=1), "utf-8")
    speakable = _speakable(Tokenizer.read(folder), config["text_config"]["vocab_size"])
    _write_weights(folder / "model.safetensors", shape, config, speakable, seed)
    return folder


def fingerprint(shape: Shape) -> str:
    """Names what a shape's checkpoint is made of: the shape, this module, and the demo's files."""
    digest = hashlib.sha256(json.dumps(asdict(shape)).encode())
    for path in [Path(__file__), *(DEMO / name for name in _SIDE_FILES)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _config(shape: Shape) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((DEMO / "config.json").read_text("utf-8"))
    config["dtype"] = config["text_config"]["dtype"] = config["vision_config"]["dtype"] = "bfloat16"
    config["text_config"] |= {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "intermediate_size": shape.ffn,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": shape.context,
    }
    config["text_config"]["rope_parameters"] |= {
        "rope_theta": 10_000.0,
        "mrope_section": [shape.head_dim // 16, *[shape.head_dim * 3 // 32] * 2],
    }
    config["vision_config"] |= {
        "depth": shape.vision_depth,
        "hidden_size": shape.vision_hidden,
        "num_heads": shape.vision_heads,
        "intermediate_size": shape.ffn,
        "out_hidden_size": shape.hidden,
        "image_size": shape.table_side * 14,
    }
    return config


def _speakable(tokenizer: Tokenizer, vocabulary: int) -> np.ndarray:
    """bool [vocabulary]: tokens that are whole characters, not only blanks, and no control tokens."""
    control = set(tokenizer.control_tokens.values())
    texts = ["" if token in control else tokenizer.decode([token]) for token in range(vocabulary)]
    return np.array([bool(text.strip()) and "\ufffd" not in text for text in texts])


@dataclass(frozen=True)
class _Weight:
    """One tensor to come: normal with a deviation of `scale`, or all ones where that is None."""

    name: str
    shape: tuple[int, ...]
    scale: float | None


def _matrix(name: str, out: int, *fan_in: int) -> _Weight:
    return _Weight(f"{name}.weight", (out, *fan_in), math.prod(fan_in) ** -0.5)


def _bias(name: str, size: int) -> _Weight:
    return _Weight(f"{name}.bias", (size,), _BIAS_SCALE)


def _norm(name: str, size: int) -> _Weight:
    return _Weight(f"{name}.weight", (size,), None)


def _weights(shape: Shape, config: dict[str, Any]) -> Iterator[_Weight]:
    hidden, vocabulary = shape.hidden, config["text_config"]["vocab_size"]
    yield _Weight("lm_head.weight", (vocabulary, hidden), _HEAD_SCALE * hidden**-0.5)
    yield _Weight("model.language_model.embed_tokens.weight", (vocabulary, hidden), 1.0)
    yield _norm("model.language_model.norm", hidden)
    for index in range(shape.layers):
        yield from _text_layer(shape, f"model.language_model.layers.{index}")
    yield from _vision(shape, config["vision_config"])


def _text_layer(shape: Shape, layer: str) -> Iterator[_Weight]:
    hidden, q, kv = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    for name in (
        "input_layernorm",
        "post_attention_layernorm",
        "post_self_attn_layernorm",
        "post_mlp_layernorm",
    ):
        yield _norm(f"{layer}.{name}", hidden)
    for name, size in (("q_proj", q), ("k_proj", kv), ("v_proj", kv)):
        yield _matrix(f"{layer}.self_attn.{name}", size, hidden)
        yield _bias(f"{layer}.self_attn.{name}", size)
    yield _matrix(f"{layer}.self_attn.o_proj", hidden, q)
    yield _matrix(f"{layer}.mlp.gate_up_proj", 2 * shape.ffn, hidden)
    yield _matrix(f"{layer}.mlp.down_proj", hidden, shape.ffn)


def _vision(shape: Shape, config: dict[str, Any]) -> Iterator[_Weight]:
    hidden, out, visual = shape.vision_hidden, shape.hidden, "model.visual"
    patch, frames, merge = config["patch_size"], config["temporal_patch_size"], config["spatial_merge_size"]
    yield _matrix(f"{visual}.patch_embed.proj", hidden, 3, frames, patch, patch)
    yield _bias(f"{visual}.patch_embed.proj", hidden)
    yield _Weight(f"{visual}.embeddings.position_embedding.weight", (shape.table_side**2, hidden), 0.5)
    yield _norm(f"{visual}.post_conv_layernorm", hidden)
    yield _norm(f"{visual}.post_layernorm", hidden)
    for index in range(shape.vision_depth):
        block = f"{visual}.blocks.{index}"
        yield _norm(f"{block}.norm1", hidden)
        yield _norm(f"{block}.norm2", hidden)
        yield _matrix(f"{block}.attn.qkv", 3 * hidden, hidden)
        yield _matrix(f"{block}.attn.proj", hidden, hidden)
        yield _matrix(f"{block}.mlp.gate_proj", out, hidden)
        yield _matrix(f"{block}.mlp.up_proj", out, hidden)
        yield _matrix(f"{block}.mlp.down_proj", hidden, out)
    yield _matrix(f"{visual}.downsample", out, hidden, merge, merge)
    yield _bias(f"{visual}.downsample", out)
    yield _matrix(f"{visual}.merger.proj", out, out)
    yield _norm(f"{visual}.merger.post_projection_norm", out)
    yield _bias(f"{visual}.merger.post_projection_norm", out)
    yield _matrix(f"{visual}.merger.gate_proj", shape.ffn, out)
    yield _matrix(f"{visual}.merger.up_proj", shape.ffn, out)
    yield _matrix(f"{visual}.merger.down_proj", out, shape.ffn)


def _write_weights(path: Path, shape: Shape, config: dict[str, Any], speakable: np.ndarray, seed: int) -> None:
    """One safetensors file, written tensor by tensor behind a header that names them all."""
    weights = list(_weights(shape, config))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for weight in weights:
        begin, end = end, end + 2 * math.prod(weight.shape)
        header[weight.name] = {"dtype": "BF16", "shape": weight.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for weight in weights:
            values = _draw(weight, seed)
            if weight.name == "lm_head.weight":
                values[~speakable] = 0
            file.write(values.astype(ml_dtypes.bfloat16).tobytes())


def _draw(weight: _Weight, seed: int) -> np.ndarray:
    """Each tensor has random numbers of its own, so that none depends on which others there are."""
    if weight.scale is None:
        return np.ones(weight.shape, np.float32)
    stream = np.random.default_rng([seed, zlib.crc32(weight.name.encode())])
    return stream.standard_normal(weight.shape, np.float32) * np.float32(weight.scale)
