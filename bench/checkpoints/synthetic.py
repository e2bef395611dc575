"""Writes checkpoints of the real architecture with random weights, large enough to measure and small enough for a CPU.

Tokenizer, template and image rules are the demo's, but images may be as large as for the real model. Rows of the head
for control tokens, blanks and parts of a character are zero: their logit is 0, which is never the largest of hundreds,
so a greedy answer never ends by itself, and equal texts mean equal tokens.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.checkpoints import random_weights
from glmserve.model.config import PROCESSOR_FILES, Checkpoint
from glmserve.model.tokenizer import Tokenizer

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
_SIDE_FILES = (*PROCESSOR_FILES, "generation_config.json", "tokenizer_config.json")
_LARGEST_IMAGE = 9_633_792  # as the real preprocessor_config.json has it, two frames a still


@dataclass(frozen=True)
class Shape:
    """The sizes of a synthetic model; all others are the demo's."""

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
THIN = Shape("thin", layers=1, ffn=64, vision_depth=1, vision_hidden=64, vision_heads=2)
"""As wide as `FULL` where it meets other parts, so that the same arrays travel, but with little to compute: it shows
what travelling costs."""


def write_checkpoint(shape: Shape, folder: Path, seed: int = 0) -> Path:
    """The Hugging Face folder of a shape, with bf16 weights, in a folder that must not exist yet."""
    _write_weights(write_configuration(shape, folder), seed, shards=1)
    return folder


def write_configuration(shape: Shape, folder: Path) -> Path:
    """Everything of a shape's checkpoint but its weights, in a folder that must not exist yet."""
    folder.mkdir(parents=True)
    for name in _SIDE_FILES:
        shutil.copyfile(DEMO / name, folder / name)
    (folder / "config.json").write_text(json.dumps(_config(shape), indent=1), "utf-8")
    processor = json.loads((DEMO / "preprocessor_config.json").read_text("utf-8"))
    processor["size"]["longest_edge"] = _LARGEST_IMAGE
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=1), "utf-8")
    return folder


def write_like(model: Path, folder: Path, shards: int = 4, seed: int = 0) -> Path:
    """A checkpoint with the sizes, tokenizer and template of the Hugging Face folder `model`, whose weights are not
    read; `folder` must not exist yet, and does not if this fails."""
    folder.mkdir(parents=True)
    try:
        for name in _SIDE_FILES:
            if (model / name).is_file():
                shutil.copyfile(model / name, folder / name)
        _write_weights(folder, seed, shards)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def size_like(model: Path) -> int:
    """Bytes of the weights that `write_like` would write."""
    return sum(weight.size_bytes for weight in random_weights.weights_of(Checkpoint.read(model)))


def fingerprint(shape: Shape) -> str:
    """Changes with everything that a shape's checkpoint is made of: the shape, this code, and the demo's files."""
    digest = hashlib.sha256(json.dumps(asdict(shape)).encode())
    sources = sorted(path for path in Path(__file__).parent.iterdir() if path.is_file())
    for path in [*sources, *(DEMO / name for name in _SIDE_FILES)]:
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


def _write_weights(folder: Path, seed: int, shards: int) -> None:
    checkpoint = Checkpoint.read(folder)
    silent = ~_speakable(Tokenizer.read(folder), checkpoint.text.vocabulary)
    random_weights.write_weights(folder, random_weights.weights_of(checkpoint), silent, seed, shards)
