"""The demo model: GLM-4.6V's architecture at 4 million parameters, and how its weights start."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel
from torch import nn
from transformers import Glm4vConfig, Glm4vForConditionalGeneration

PREPROCESSOR: dict[str, Any] = {
    "size": {"shortest_edge": 12544, "longest_edge": 2 * 224 * 224},
    "do_rescale": True,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Glm46VImageProcessor",
    "processor_class": "Glm46VProcessor",
}
VIDEO_PREPROCESSOR: dict[str, Any] = {
    **{key: value for key, value in PREPROCESSOR.items() if key not in ("image_processor_type", "size")},
    "size": {"shortest_edge": 12544, "longest_edge": 16 * 112 * 112},
    "video_processor_type": "Glm46VVideoProcessor",
}

WHOLE_TOKENS = 64
"""The output layer has whole blocks of tokens, as the real one's: kernels of GPUs want columns in blocks of eight."""
NEVER_SAID = "[MASK]"
"""What the weights of a token that no text has begin as."""


def demo_config(tokenizer: Tokenizer) -> Glm4vConfig:
    def token(text: str) -> int:
        return token_id(tokenizer, text)

    config = Glm4vConfig(
        image_start_token_id=token("<|begin_of_image|>"),
        image_end_token_id=token("<|end_of_image|>"),
        video_start_token_id=token("<|begin_of_video|>"),
        video_end_token_id=token("<|end_of_video|>"),
        image_token_id=token("<|image|>"),
        video_token_id=token("<|video|>"),
        tie_word_embeddings=False,
        text_config={
            "model_type": "glm4v_text",
            "attention_bias": True,
            "pad_token_id": token("<|endoftext|>"),
            "eos_token_id": end_token_ids(tokenizer),
            "hidden_act": "silu",
            "hidden_size": 256,
            "intermediate_size": 512,
            "max_position_embeddings": 4096,
            "num_attention_heads": 8,
            "num_hidden_layers": 4,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-5,
            "vocab_size": -(-tokenizer.get_vocab_size() // WHOLE_TOKENS) * WHOLE_TOKENS,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 100,
                "partial_rotary_factor": 0.5,
                "mrope_section": [2, 3, 3],
            },
        },
        vision_config={
            "model_type": "glm4v_vision",
            "hidden_size": 160,
            "depth": 4,
            "num_heads": 5,
            "attention_bias": False,
            "intermediate_size": 512,
            "hidden_act": "silu",
            "image_size": 112,
            "in_channels": 3,
            "patch_size": 14,
            "out_hidden_size": 256,
            "rms_norm_eps": 1e-5,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    )
    config.architectures = ["Glm4vForConditionalGeneration"]
    return config


def new_model(tokenizer: Tokenizer, seed: int = 0) -> Glm4vForConditionalGeneration:
    """A model with starting weights that a short training can use."""
    torch.manual_seed(seed)
    config = demo_config(tokenizer)
    config._attn_implementation = "sdpa"
    model = Glm4vForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            _start(name, parameter, vision=name.startswith("model.visual."))
    return model


def start_from(model: Glm4vForConditionalGeneration, tokenizer: Tokenizer, folder: Path) -> None:
    """Take over the weights of an earlier demo; a token it did not have starts as the mean of its pieces there, and
    a number beside that near its neighbours."""
    earlier = Tokenizer.from_file(str(folder / "tokenizer.json"))
    weights = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    decoder = ByteLevel()
    for name in ("lm_head.weight", "model.language_model.embed_tokens.weight"):
        rows = []
        for token in range(len(model.lm_head.weight)):
            text = tokenizer.id_to_token(token) or NEVER_SAID
            same = earlier.token_to_id(text)
            pieces = [same] if same is not None else earlier.encode(decoder.decode([text])).ids
            row = weights[name][pieces].mean(dim=0)
            rows.append(row + _waves(int(text), row) if same is None and text.isdecimal() else row)
        weights[name] = torch.stack(rows)
    model.load_state_dict(weights)


def _waves(number: int, like: torch.Tensor) -> torch.Tensor:
    """What tells a number of 0 to 1000 from others, much from distant ones and little from near ones."""
    turns = number / 1000 * math.pi * torch.arange(1, 9)
    directions = torch.randn(16, len(like), generator=torch.Generator().manual_seed(0))
    waves = torch.cat([turns.cos(), turns.sin()]) @ directions
    found: torch.Tensor = waves * (like.norm() / waves.norm())
    return found


def save_model(model: Glm4vForConditionalGeneration, tokenizer: Tokenizer, folder: Path) -> None:
    """Write weights in fp16 with config.json and the files of the processors and of generation."""
    half = {name: tensor.detach().to(torch.float16).contiguous() for name, tensor in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=half)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    _set_dtype(config, "float16")
    config["is_demo"] = True  # so that nobody takes what is served for the real model
    _write_json(folder / "config.json", config)
    (folder / "model.safetensors").chmod(0o644)  # its writer leaves it to its owner alone
    _write_json(folder / "preprocessor_config.json", PREPROCESSOR)
    _write_json(folder / "video_preprocessor_config.json", VIDEO_PREPROCESSOR)
    _write_json(
        folder / "generation_config.json",
        {
            "do_sample": False,
            "eos_token_id": end_token_ids(tokenizer),
            "pad_token_id": token_id(tokenizer, "<|endoftext|>"),
        },
    )


def end_token_ids(tokenizer: Tokenizer) -> list[int]:
    return [token_id(tokenizer, text) for text in ("<|endoftext|>", "<|user|>", "<|observation|>")]


def _start(name: str, parameter: nn.Parameter, vision: bool) -> None:
    """Embeddings at 1, quiet residual branches (post-norm gains 0.4), matrices by their fan-in."""
    if name.endswith(("post_self_attn_layernorm.weight", "post_mlp_layernorm.weight")):
        parameter.fill_(0.4)
    elif "norm" in name and name.endswith("weight"):
        parameter.fill_(1.0)
    elif name.endswith("bias"):
        parameter.zero_()
    elif name.endswith("embed_tokens.weight"):
        parameter.normal_(std=1.0)
    elif name.endswith("position_embedding.weight"):
        parameter.normal_(std=0.5)
    elif name.endswith("patch_embed.proj.weight"):
        # Both frames of a still are equal, so their weights add up; start them so that the sum has the right size.
        parameter.normal_(std=0.8 / math.sqrt(parameter[0].numel()))
    else:
        fan_in = parameter[0].numel()
        parameter.normal_(std=(0.8 if vision else 1.0) / math.sqrt(fan_in))


def token_id(tokenizer: Tokenizer, text: str) -> int:
    found = tokenizer.token_to_id(text)
    if found is None:
        raise ValueError(f"the tokenizer lacks {text}")
    return int(found)


def _set_dtype(config: dict[str, Any], dtype: str) -> None:
    config["dtype"] = dtype
    for part in ("text_config", "vision_config"):
        config[part]["dtype"] = dtype


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
