"""However a config.json is written, it is understood as transformers understands it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glmserve.model.config import Checkpoint

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
Values = dict[str, Any]


def config_of_transformers(folder: Path) -> Any:
    """Imported here: transformers takes seconds, and most processes of a run never use it."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder)


def _theta_beside(text: Values) -> None:
    text["rope_theta"] = text["rope_parameters"].pop("rope_theta")


def _two_thetas(text: Values) -> None:
    text["rope_theta"] = 777.0


def _no_theta(text: Values) -> None:
    del text["rope_parameters"]["rope_theta"]


def _share_beside(text: Values) -> None:
    text["partial_rotary_factor"] = text["rope_parameters"].pop("partial_rotary_factor")


def _older(text: Values) -> None:
    _theta_beside(text)
    _share_beside(text)
    text["rope_scaling"] = {"type": "default", "mrope_section": text.pop("rope_parameters")["mrope_section"]}


def _older_and_null(text: Values) -> None:
    _older(text)
    text["rope_parameters"] = None


def _both(text: Values) -> None:
    text["rope_scaling"] = text["rope_parameters"] | {"rope_theta": 777.0}


def _empty_scaling(text: Values) -> None:
    text["rope_scaling"] = {}


def _wide_heads_and_no_sections(text: Values) -> None:
    """Of the widths that transformers' own sections fit."""
    text["num_attention_heads"] = 2
    del text["rope_parameters"]["mrope_section"]


def _kv_heads_null(text: Values) -> None:
    text["num_key_value_heads"] = None


def _kv_heads_left_out(text: Values) -> None:
    del text["num_key_value_heads"]


@pytest.mark.parametrize(
    "change",
    [
        _theta_beside,
        _two_thetas,
        _no_theta,
        _share_beside,
        _older,
        _older_and_null,
        _both,
        _empty_scaling,
        _wide_heads_and_no_sections,
        _kv_heads_null,
        _kv_heads_left_out,
    ],
)
def test_rope_and_kv_heads_are_those_of_transformers(change: Callable[[Values], None], tmp_path: Path) -> None:
    folder = _altered(tmp_path, lambda config: change(config["text_config"]))
    ours, theirs = Checkpoint.read(folder).text, config_of_transformers(folder).text_config
    rope = theirs.rope_parameters
    assert ours.rope_theta == rope["rope_theta"]
    assert ours.rotary_dim == ours.head_dim * rope.get("partial_rotary_factor", 1.0)
    assert list(ours.mrope_section) == rope.get("mrope_section", [8, 12, 12])
    assert ours.kv_heads == theirs.num_key_value_heads


@pytest.mark.parametrize("name", ["rope_parameters", "rope_scaling", "beside"])
def test_the_image_encoders_theta_is_that_of_transformers(name: str, tmp_path: Path) -> None:
    def change(config: Values) -> None:
        vision = config["vision_config"]
        del vision["rope_parameters"]
        vision |= {"rope_theta": 777.0} if name == "beside" else {name: {"rope_theta": 777.0}}

    folder = _altered(tmp_path, change)
    theirs = config_of_transformers(folder).vision_config.rope_parameters["rope_theta"]
    assert Checkpoint.read(folder).vision.rope_theta == theirs == 777.0


@pytest.mark.parametrize("outer", [True, False, None])
@pytest.mark.parametrize("inner", [True, False, None])
def test_a_tied_head_may_be_told_of_in_either_place(outer: bool | None, inner: bool | None, tmp_path: Path) -> None:
    def change(config: Values) -> None:
        del config["tie_word_embeddings"]
        config |= {} if outer is None else {"tie_word_embeddings": outer}
        config["text_config"] |= {} if inner is None else {"tie_word_embeddings": inner}

    folder = _altered(tmp_path, change)
    assert Checkpoint.read(folder).text.tied_head is config_of_transformers(folder).tie_word_embeddings


def _altered(folder: Path, change: Callable[[Values], None]) -> Path:
    for name in ("preprocessor_config.json", "generation_config.json"):
        shutil.copy(DEMO / name, folder)
    config = json.loads((DEMO / "config.json").read_text("utf-8"))
    change(config)
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder
