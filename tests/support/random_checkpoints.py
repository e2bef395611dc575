"""Makes small Hugging Face checkpoints of many shapes with random weights and tokenizers of their own.

Whoever needs torch imports it in a function: it takes seconds, and most processes of a run never use it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
needs_torch = pytest.mark.skipif(
    None in (find_spec("torch"), find_spec("transformers")), reason="torch and transformers are not installed"
)
_CORPUS = [
    "Hello, who are you? Be brief.",
    "What is in this picture? How many shapes?",
    "图中有几个三角形？你好",
    "red blue green",
]


@dataclass(frozen=True)
class Shape:
    """What differs from one checkpoint to the next."""

    name: str
    layers: int = 2
    hidden: int = 64
    heads: int = 4
    kv_heads: int = 2
    mrope_section: tuple[int, int, int] = (1, 1, 2)
    rope_theta: float = 10_000.0
    tied: bool = False
    words: int = 320
    controls_first: bool = False
    vision_depth: int = 2
    vision_hidden: int = 48
    vision_heads: int = 4
    table: int = 8
    vision_bias: bool = False
    partial_rotary_factor: float = 0.5
    controls: tuple[str, ...] = ()
    """The control tokens in their order; those of the demo if there are none."""
    ends: tuple[str, ...] = ("<|endoftext|>", "<|user|>", "<|observation|>")


SHAPES = (
    Shape("many-queries-one-kv", heads=8, kv_heads=1, hidden=128, mrope_section=(1, 1, 2)),
    Shape("as-many-kv-as-queries", heads=4, kv_heads=4, mrope_section=(2, 1, 1), rope_theta=500_000.0),
    Shape("tied-head-deep", layers=5, tied=True, mrope_section=(0, 2, 2), vision_depth=1),
    Shape(
        "control-tokens-first", controls_first=True, words=500, hidden=96, heads=3, kv_heads=3, mrope_section=(2, 3, 3)
    ),
    Shape(
        "wide-heads",
        hidden=128,
        heads=2,
        kv_heads=1,
        mrope_section=(4, 6, 6),
        vision_hidden=96,
        vision_heads=3,
        table=24,
    ),
    Shape("full-rotary-one-layer", layers=1, mrope_section=(2, 3, 3), partial_rotary_factor=1.0, vision_bias=True),
)


def make(shape: Shape, folder: Path) -> Path:
    """Writes the checkpoint into a new folder and returns it."""
    import torch
    from transformers import Glm4vForConditionalGeneration

    folder.mkdir(parents=True)
    tokenizer = _tokenizer(shape)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name in ("chat_template.jinja", "preprocessor_config.json", "tokenizer_config.json"):
        (folder / name).write_bytes((DEMO / name).read_bytes())
    torch.manual_seed(len(shape.name))
    model = Glm4vForConditionalGeneration(_config(shape, tokenizer)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:  # norms and biases begin as ones and zeros, which would hide a missing one
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif "embed" not in name:
                parameter.copy_(torch.randn_like(parameter) * 0.7 * parameter[0].numel() ** -0.5)
            else:
                parameter.copy_(torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def _tokenizer(shape: Shape) -> Tokenizer:
    known = json.loads((DEMO / "tokenizer.json").read_text("utf-8"))["added_tokens"]
    controls = [*shape.controls] or [token["content"] for token in known]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    first = controls if shape.controls_first else []
    trainer = trainers.BpeTrainer(
        vocab_size=shape.words,
        special_tokens=first,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.add_special_tokens(controls)
    return tokenizer


def _config(shape: Shape, tokenizer: Tokenizer) -> Any:
    from transformers import Glm4vConfig

    def token(text: str) -> int:
        found = tokenizer.token_to_id(text)
        assert found is not None, text
        return found

    text = {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "intermediate_size": 2 * shape.hidden + 8,
        "vocab_size": tokenizer.get_vocab_size() + 7,
        "max_position_embeddings": 2048,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": shape.rope_theta,
            "partial_rotary_factor": shape.partial_rotary_factor,
            "mrope_section": list(shape.mrope_section),
        },
        "eos_token_id": [token(text) for text in shape.ends],
        "pad_token_id": token("<|endoftext|>"),
    }
    vision = {
        "depth": shape.vision_depth,
        "hidden_size": shape.vision_hidden,
        "num_heads": shape.vision_heads,
        "out_hidden_size": shape.hidden,
        "intermediate_size": 3 * shape.hidden,
        "image_size": 14 * shape.table,
        "attention_bias": shape.vision_bias,
    }
    return Glm4vConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token("<|image|>"),
        video_token_id=token("<|video|>"),
        image_start_token_id=token("<|begin_of_image|>"),
        image_end_token_id=token("<|end_of_image|>"),
        video_start_token_id=token("<|begin_of_video|>"),
        video_end_token_id=token("<|end_of_video|>"),
        tie_word_embeddings=shape.tied,
    )
