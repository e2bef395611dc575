"""A checkpoint's facts are read from its files, and what is missing is named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from real_checkpoint import REAL, needs_real

from glmserve.errors import BadArtifact
from glmserve.model.config import Checkpoint

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
SIZE = Checkpoint.read(DEMO).text.vocabulary


@needs_real
def test_the_real_model_is_read_as_published() -> None:
    found = Checkpoint.read(REAL)
    text, vision = found.text, found.vision
    assert (text.layers, text.hidden, text.ffn, text.heads, text.kv_heads, text.head_dim) == (
        40,
        4096,
        13696,
        32,
        2,
        128,
    )
    assert (text.rope_theta, text.rotary_dim, text.mrope_section, text.tied_head) == (500_000, 64, (8, 12, 12), False)
    assert (vision.depth, vision.hidden, vision.heads, vision.table_side, vision.out_hidden) == (24, 1536, 12, 24, 4096)
    assert found.image_token_id == 151_363 and found.eos_token_ids == (151_329, 151_336, 151_338)
    assert (found.images.min_pixels, found.images.max_pixels) == (12_544, 9_633_792)


def _altered(folder: Path, change: dict[str, Any], file: str = "config.json") -> Path:
    for name in ("config.json", "preprocessor_config.json", "generation_config.json"):
        (folder / name).write_bytes((DEMO / name).read_bytes())
    values = json.loads((folder / file).read_text())
    for path, value in change.items():
        *parents, key = path.split(".")
        target = values
        for parent in parents:
            target = target[parent]
        if value is ...:
            del target[key]
        else:
            target[key] = value
    (folder / file).write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "LlamaForCausalLM"),
        ({"image_token_id": ...}, "image_token_id"),
        ({"text_config": ...}, "text_config"),
        ({"text_config.hidden_size": "wide"}, "hidden_size"),
        ({"text_config.rope_parameters.mrope_section": [1, 2, 3]}, "mrope_section"),
        ({"text_config.rope_parameters.rope_type": "yarn"}, "default rope"),
        ({"vision_config.out_hidden_size": 8}, "out_hidden_size"),
        ({"text_config.hidden_act": "gelu"}, "hidden_act"),
        ({"architectures": 5}, "architectures must be a list of strings"),
        ({"image_token_id": SIZE}, f"image_token_id must be an integer from 0 to {SIZE - 1}"),
        ({"image_token_id": -1}, "image_token_id"),
        ({"text_config.num_hidden_layers": 0}, "num_hidden_layers must be a positive integer"),
        ({"text_config.num_hidden_layers": True}, "num_hidden_layers"),
        ({"text_config.num_attention_heads": 0}, "num_attention_heads"),
        ({"text_config.num_attention_heads": 10_000_000}, "hidden_size / num_attention_heads"),
        ({"text_config.head_dim": 64}, "hidden_size / num_attention_heads"),
        ({"text_config.num_key_value_heads": 3}, "a multiple of num_key_value_heads"),
        ({"text_config.rms_norm_eps": 0}, "rms_norm_eps must be a positive number"),
        ({"text_config.rms_norm_eps": math.nan}, "rms_norm_eps"),
        ({"text_config.rms_norm_eps": 10**400}, "rms_norm_eps"),
        ({"text_config.rope_parameters": [1]}, "rope_parameters is missing or not an object"),
        ({"text_config.rope_parameters.rope_theta": -1}, "rope_theta must be a positive number"),
        ({"text_config.rope_parameters.partial_rotary_factor": math.nan}, "partial_rotary_factor"),
        ({"text_config.rope_parameters.partial_rotary_factor": 2}, "partial_rotary_factor must be at most 1"),
        ({"text_config.rope_parameters.mrope_section": [2.5, 3, 3]}, "mrope_section must be three integers"),
        ({"vision_config.depth": -1}, "depth must be a positive integer"),
        ({"vision_config.num_heads": 0}, "num_heads must be a positive integer"),
        ({"vision_config.num_heads": 7}, "a multiple of four times num_heads"),
        ({"vision_config.patch_size": 0}, "patch_size must be a positive integer"),
        ({"vision_config.image_size": 13}, "image_size must be at least patch_size"),
        ({"vision_config.rope_parameters.rope_theta": math.inf}, "rope_theta"),
    ],
)
def test_what_is_wrong_in_the_config_is_named(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match=words):
        Checkpoint.read(_altered(tmp_path, change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"merge_size": 3}, "merge_size must be 2, as vision_config has it in spatial_merge_size"),
        ({"patch_size": 16}, "patch_size must be 14"),
        ({"temporal_patch_size": 1}, "temporal_patch_size must be 2"),
        ({"size": {"shortest_edge": 0, "longest_edge": 9}}, "shortest_edge must be a positive integer"),
        ({"size": {"shortest_edge": 10, "longest_edge": 9}}, "longest_edge must be at least shortest_edge"),
        ({"image_std": [0.2, 0, 0.2]}, "image_std must be three positive numbers"),
        ({"image_mean": [0.2, math.nan, 0.2]}, "image_mean must be three numbers"),
    ],
)
def test_what_is_wrong_in_the_image_rules_is_named(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match=words):
        Checkpoint.read(_altered(tmp_path, change, "preprocessor_config.json"))


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match=r"no config\.json"):
        Checkpoint.read(tmp_path)
    folder = _altered(tmp_path, {})
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(BadArtifact, match=r"preprocessor_config\.json is not readable JSON"):
        Checkpoint.read(folder)


def test_the_rope_values_of_older_files_are_understood(tmp_path: Path) -> None:
    wanted = Checkpoint.read(_altered(tmp_path, {})).text
    rope = json.loads((DEMO / "config.json").read_text())["text_config"]["rope_parameters"]
    older = {
        "text_config.rope_parameters": ...,
        "text_config.rope_theta": rope["rope_theta"],
        "text_config.partial_rotary_factor": rope["partial_rotary_factor"],
        "text_config.rope_scaling": {"type": "default", "mrope_section": rope["mrope_section"]},
    }
    assert Checkpoint.read(_altered(tmp_path, older)).text == wanted
