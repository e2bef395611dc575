"""A LoRA adapter is merged at export as peft merges it, and what cannot be merged so is refused in words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from random_checkpoints import Shape, make, needs_torch
from rich.console import Console
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from export.build.pipeline import build
from export.checkpoint.hub import Source
from export.checkpoint.lora.adapter import Adapter
from export.checkpoint.lora.merged import MergedWeights
from export.checkpoint.weights import Weights
from export.cli import app
from export.errors import BadShard, Exit
from export.verify.candidate import Candidate
from export.verify.cases import standard_cases
from export.verify.parity import compare
from glmserve.build.manifest import Manifest
from glmserve.errors import BadArtifact

needs_peft = pytest.mark.skipif(find_spec("peft") is None, reason="peft is not installed")
DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
QUIET = Console(quiet=True)
TEXT = "model.language_model.layers"
QUERY = f"{TEXT}.0.self_attn.q_proj"
HIDDEN = json.loads((DEMO / "config.json").read_text("utf-8"))["text_config"]["hidden_size"]

CONFIGS: dict[str, dict[str, Any]] = {
    "a list of names": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "o_proj"]},
    "an expression": {"r": 3, "lora_alpha": 5, "target_modules": r".*language_model.*\.(gate_up|down)_proj"},
    "all linear layers": {"r": 2, "lora_alpha": 2, "target_modules": "all-linear"},
    "rslora": {"r": 9, "lora_alpha": 4, "target_modules": ["k_proj"], "use_rslora": True},
    "ranks and alphas of their own": {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "v_proj"],
        "rank_pattern": {"v_proj": 2, r"layers\.1\.self_attn\.q_proj": 6},
        "alpha_pattern": {"layers.0.self_attn.q_proj": 3},
    },
    "some layers": {"r": 4, "target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
    "without some modules": {
        "r": 4,
        "target_modules": ["q_proj", "down_proj"],
        "exclude_modules": r".*visual.*",
    },
    "embeddings and head": {"r": 4, "target_modules": ["embed_tokens", "lm_head", "q_proj"]},
    "a head trained whole": {"r": 4, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "biases": {"r": 4, "target_modules": ["q_proj", "k_proj"], "bias": "lora_only"},
    "inputs first": {"r": 4, "target_modules": ["q_proj"], "fan_in_fan_out": True},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(Shape("lora"), tmp_path_factory.mktemp("lora") / "checkpoint")


def _trained(checkpoint: Path, folder: Path, config: dict[str, Any], before: Any = None) -> Any:
    """An adapter made and saved by peft; the model after peft's own merge."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Glm4vForConditionalGeneration

    model = before or Glm4vForConditionalGeneration.from_pretrained(checkpoint)
    adapted = get_peft_model(model, LoraConfig(init_lora_weights=False, task_type="CAUSAL_LM", **config))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for _, parameter in adapted.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    adapted.save_pretrained(folder)
    return adapted.merge_and_unload()


def _merged(checkpoint: Path, *folders: Path) -> dict[str, np.ndarray]:
    base = Weights.open(checkpoint)
    weights = MergedWeights.of(base, [Adapter.open(folder, folder.name, base, False) for folder in folders])
    return {name: weights.read(name, weights.stored_shape(name)) for name in weights.shards}


def _assert_same(ours: dict[str, np.ndarray], model: Any) -> None:
    theirs = {name: np.asarray(tensor) for name, tensor in model.state_dict().items() if name in ours}
    assert theirs.keys() == ours.keys()
    for name, right in theirs.items():
        np.testing.assert_allclose(ours[name], right, rtol=1e-5, atol=2e-6, err_msg=name)


@pytest.mark.parity
@needs_torch
@needs_peft
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_tensor_is_what_peft_makes_of_it(config: dict[str, Any], checkpoint: Path, tmp_path: Path) -> None:
    model = _trained(checkpoint, tmp_path / "adapter", config)
    ours, before = _merged(checkpoint, tmp_path / "adapter"), _merged(checkpoint)
    _assert_same(ours, model)
    assert any(not np.array_equal(ours[name], before[name]) for name in ours)


@pytest.mark.parity
@needs_torch
@needs_peft
@pytest.mark.filterwarnings("ignore")
def test_two_adapters_are_merged_one_after_the_other(checkpoint: Path, tmp_path: Path) -> None:
    first = _trained(checkpoint, tmp_path / "first", CONFIGS["a list of names"])
    both = _trained(checkpoint, tmp_path / "second", CONFIGS["a head trained whole"], first)
    _assert_same(_merged(checkpoint, tmp_path / "first", tmp_path / "second"), both)


@pytest.mark.parity
@needs_torch
@needs_peft
@pytest.mark.filterwarnings("ignore")
def test_a_build_with_an_adapter_computes_what_peft_and_transformers_compute(checkpoint: Path, tmp_path: Path) -> None:
    from export.verify.reference import Reference

    adapter = tmp_path / "adapter"
    _trained(checkpoint, adapter, CONFIGS["all linear layers"])
    folder = build(checkpoint, tmp_path / "builds", QUIET, adapters=[Source(adapter, "mine")])
    assert Manifest.read(folder).adapters == [
        {"name": "mine", "digest": Adapter.open(adapter, "", Weights.open(checkpoint), False).digest}
    ]
    stages = list(compare(Reference(checkpoint, [adapter]), Candidate(folder, 8, 1024), standard_cases()[:3]))
    assert stages and not [stage for stage in stages if not stage.passed]
    plain = list(compare(Reference(checkpoint), Candidate(folder, 8, 1024), standard_cases()[:1]))
    assert [stage for stage in plain if not stage.passed], "the adapter changes what is computed"
    asked = ["verify", str(folder), "--checkpoint", str(checkpoint), "--samples", "1"]
    other = CliRunner().invoke(app, asked)
    assert other.exit_code == Exit.BAD_ARTIFACT and "its adapters are mine" in other.stderr
    assert CliRunner().invoke(app, [*asked, "--lora", str(adapter)]).exit_code == 0


def _written(folder: Path, config: dict[str, Any] | None = None, tensors: dict[str, Any] | None = None) -> Path:
    """An adapter of the demo, with these differences from a right one; None takes a tensor or key away."""
    right = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": r".*layers\.0\.self_attn\.q_proj"}
    random = np.random.default_rng(0)
    held = {
        f"base_model.model.{QUERY}.lora_A.weight": random.normal(size=(2, HIDDEN)).astype(np.float32),
        f"base_model.model.{QUERY}.lora_B.weight": random.normal(size=(HIDDEN, 2)).astype(np.float32),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(right | (config or {})), "utf-8")
    changed = held | (tensors or {})
    save_file(
        {name: array for name, array in changed.items() if array is not None}, folder / "adapter_model.safetensors"
    )
    return folder


def _open(folder: Path, tied: bool = False) -> Adapter:
    return Adapter.open(folder, "adapter", Weights.open(DEMO), tied)


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name,
        lambda name: name.replace("lora_A.weight", "lora_A.default.weight").replace("lora_B.w", "lora_B.default.w"),
        lambda name: name.replace("model.language_model.layers", "model.layers"),
        lambda name: name.replace("model.language_model.layers", "language_model.model.layers"),
        lambda name: name.removeprefix("base_model.model."),
    ],
)
def test_a_layer_is_found_under_every_name_that_training_gives_it(rename: Callable[[str], str], tmp_path: Path) -> None:
    tensors = load_file(_written(tmp_path) / "adapter_model.safetensors")
    save_file({rename(name): array for name, array in tensors.items()}, tmp_path / "adapter_model.safetensors")
    assert set(_open(tmp_path).changes) == {f"{QUERY}.weight"}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
        ({"lora_bias": True}, "lora_bias"),
        ({"trainable_token_indices": [1]}, "single tokens"),
        ({"layer_replication": [[0, 1]]}, "repeats layers"),
        ({"use_qalora": True}, "use_qalora"),
    ],
)
def test_what_is_more_than_a_sum_is_refused_with_what_to_do_instead(
    config: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(BadArtifact, match=said) as refused:
        _open(_written(tmp_path, config))
    assert "merge_and_unload" in refused.value.message


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"r": 0}, "r is 0"),
        ({"r": "8"}, "r is '8'"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"target_modules": "(("}, "no regular expression"),
        ({"target_modules": 3}, "target_modules must be"),
        ({"rank_pattern": [1]}, "rank_pattern must be"),
        ({"bias": "some"}, "bias is 'some'"),
        ({"target_modules": ["k_proj"]}, "does not name"),
        ({"r": 3}, r"rank 3"),
    ],
)
def test_a_wrong_config_is_named_by_its_key(config: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match=said):
        _open(_written(tmp_path, config))


A, B = (f"base_model.model.{QUERY}.lora_{side}.weight" for side in "AB")


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({A: np.zeros((2, HIDDEN + 1), np.float32)}, rf"lora_A.weight is \[2, {HIDDEN + 1}\], not \[2, {HIDDEN}\]"),
        ({B: None}, "lacks lora_B"),
        ({A: None}, "lacks lora_A"),
        ({A: None, B: None}, "holds no tensor"),
        ({A.replace(".0.", ".77."): np.zeros((2, HIDDEN), np.float32)}, "has no layer .*77"),
        ({"base_model.model.lm_head.weight": np.zeros((3, HIDDEN), np.float32)}, r"lm_head.weight is \[3"),
        ({f"{QUERY}.something": np.zeros(3, np.float32)}, "neither a LoRA matrix nor"),
        ({A: np.zeros((2, HIDDEN), np.int8)}, "not stored in one of"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(tensors: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match=said):
        _open(_written(tmp_path, tensors=tensors))


def test_an_adapter_that_lacks_a_layer_it_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadShard, match=r"lacks the matrices of .*layers\.1\.self_attn\.q_proj"):
        _open(_written(tmp_path, {"target_modules": ["q_proj"]}))


def test_a_tied_head_takes_no_adapter_of_its_own(tmp_path: Path) -> None:
    vocabulary = Weights.open(DEMO).stored_shape("model.language_model.embed_tokens.weight")
    whole = {"base_model.model.model.language_model.embed_tokens.weight": np.zeros(vocabulary, np.float32)}
    with pytest.raises(BadArtifact, match="tied to its embeddings"):
        _open(_written(tmp_path, {"modules_to_save": ["embed_tokens"]}, whole), tied=True)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("adapter_config.json", None, "is no adapter"),
        ("adapter_config.json", b"{", "cannot be read as JSON"),
        ("adapter_model.safetensors", None, "holds no adapter_model.safetensors"),
        ("adapter_model.safetensors", b"123", "truncated or not a safetensors file"),
    ],
)
def test_a_missing_or_broken_file_is_named(name: str, content: bytes | None, said: str, tmp_path: Path) -> None:
    file = _written(tmp_path) / name
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(BadArtifact, match=said):
        _open(tmp_path)


def test_rows_and_columns_of_a_merged_tensor_are_those_of_the_whole(tmp_path: Path) -> None:
    base = Weights.open(DEMO)
    weights = MergedWeights.of(base, [_open(_written(tmp_path))])
    name, shape = f"{QUERY}.weight", base.stored_shape(f"{QUERY}.weight")
    whole = weights.read(name, shape)
    assert not np.array_equal(whole, base.read(name, shape))
    np.testing.assert_array_equal(weights.read_rows(name, 3, 9), whole[3:9])
    np.testing.assert_allclose(weights.read_columns(name, 5, 40), whole[:, 5:40], rtol=1e-6)
    assert not weights.is_as_stored(name) and weights.is_as_stored("lm_head.weight")


def test_a_merged_tensor_is_rounded_once_to_the_checkpoints_own_type(tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(DEMO, tmp_path / "checkpoint"))
    tensors = {name: array.astype(ml_dtypes.bfloat16) for name, array in load_file(DEMO / "model.safetensors").items()}
    save_file(tensors, checkpoint / "model.safetensors")
    base, name = Weights.open(checkpoint), f"{QUERY}.weight"
    weights = MergedWeights.of(base, [Adapter.open(_written(tmp_path / "adapter"), "", base, False)])
    held = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    right = tensors[name].astype(np.float32) + np.float32(2) * (held[B] @ held[A])
    found = weights.read(name, tensors[name].shape)
    assert found.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found, right.astype(ml_dtypes.bfloat16))


@pytest.mark.build
def test_a_build_names_its_adapters_and_is_another_build(tmp_path: Path) -> None:
    adapter, out = _written(tmp_path / "adapter"), tmp_path / "builds"
    plain = build(DEMO, out, QUIET)
    one = CliRunner().invoke(app, ["build", "--checkpoint", str(DEMO), "--out", str(out), "--lora", str(adapter)])
    assert one.exit_code == 0, one.stderr
    folder = Path(one.stdout.splitlines()[-1])
    manifest = Manifest.read(folder)
    assert folder.name != plain.name and [held["name"] for held in manifest.adapters] == ["adapter"]
    assert not (folder / "certificate.json").exists(), "golden answers are the base model's"
    assert json.loads((folder / "canary" / "canary.json").read_text("utf-8"))["answer"] is None
    twice = build(DEMO, out, QUIET, adapters=[Source(adapter, "adapter"), Source(adapter, "adapter")])
    assert twice.name not in (plain.name, folder.name)
    assert build(DEMO, out, QUIET, adapters=[Source(adapter, "adapter")]) == folder


def test_an_adapter_that_does_not_exist_is_told_from_a_checkpoint(tmp_path: Path) -> None:
    asked = ["build", "--checkpoint", str(DEMO), "--out", str(tmp_path), "--lora", "no such folder"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == Exit.BAD_ARTIFACT and "no adapter folder no such folder" in done.stderr
