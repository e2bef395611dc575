"""A quantised checkpoint that is not read is refused in words: what it has, and what to do instead."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published import SHARD, awq_layer, gptq_layer, publish, rounded
from random_checkpoints import DEMO
from safetensors.numpy import load_file, save_file

from export.build.spec import BuildSpec
from export.calibrate.order import CalibrationOrder
from export.checkpoint.formats.opened import READERS, REFUSED, open_weights
from export.checkpoint.formats.support import support
from export.errors import BadShard
from export.precision import Precision, Target
from glmserve.errors import BadArtifact

pytestmark = pytest.mark.slow
LAYER = "model.language_model.layers.0.mlp.down_proj"


def with_config(folder: Path, quantization: dict[str, Any], inside: str | None = None) -> Path:
    """The demo, whose config.json says that it is quantised."""
    folder.mkdir()
    for path in DEMO.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (config if inside is None else config[inside])["quantization_config"] = quantization
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder


CONFIGS = [
    ({"quant_method": "bitsandbytes", "bnb_4bit_quant_type": "nf4"}, "bitsandbytes is not read, .* --precision int4"),
    ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "Export the unquantised checkpoint"),
    ({"quant_method": "hqq"}, "quant_method hqq is not read, only compressed-tensors, gptq, awq, fp8"),
    ({"bits": 4}, "quant_method none is not read"),
    ({"quant_method": "awq", "version": "gemv"}, "version gemv packs codes in another order.* version gemm"),
    ({"quant_method": "awq", "bits": 8}, "bits 8 is not read"),
    ({"quant_method": "gptq", "checkpoint_format": "marlin"}, "checkpoint_format marlin is not read"),
    ({"quant_method": "compressed-tensors", "format": "marlin-24"}, "format marlin-24 is not read"),
    (
        {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"format": "nvfp4-pack-quantized"}}},
        "format nvfp4-pack-quantized is not read",
    ),
    (
        {"quant_method": "compressed-tensors", "format": "dense", "sparsity_config": {"format": "sparse-24-bitmask"}},
        "sparsity_config has weights stored sparsely",
    ),
    (
        {"quant_method": "compressed-tensors", "format": "dense", "transform_config": {"config_groups": {"R1": {}}}},
        "transform_config turns activations",
    ),
]


@pytest.mark.parametrize(("quantization", "said"), CONFIGS, ids=lambda value: str(value)[:60])
@pytest.mark.parametrize("inside", [None, "text_config"])
def test_a_method_is_refused_with_a_remedy(
    quantization: dict[str, Any], said: str, inside: str | None, tmp_path: Path
) -> None:
    folder = with_config(tmp_path / "made", quantization, inside)
    with pytest.raises(BadArtifact, match=rf"^config\.json: quantization_config: .*{said}"):
        BuildSpec.of(folder, None, Target.CPU)


Change = Callable[[dict[str, np.ndarray]], None]


def drop(part: str) -> Change:
    return lambda tensors: tensors.__delitem__(f"{LAYER}.{part}")


def cut(part: str, rows: int) -> Change:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors[f"{LAYER}.{part}"] = tensors[f"{LAYER}.{part}"][:rows].copy()

    return change


def group_out_of_range(tensors: dict[str, np.ndarray]) -> None:
    tensors[f"{LAYER}.g_idx"] = np.full_like(tensors[f"{LAYER}.g_idx"], 99)


MAKERS = {
    "gptq": lambda name, array: gptq_layer(name, rounded(array, 4, 128), 4),
    "awq": lambda name, array: awq_layer(name, rounded(array, 4, 128, False)),
}
CHANGES = [drop("scales"), cut("scales", 3), cut("qzeros", 1), cut("qweight", 1)]
BROKEN = [(method, change) for method in MAKERS for change in CHANGES]


@pytest.mark.parametrize(("method", "change"), [*BROKEN, ("gptq", drop("qzeros")), ("gptq", group_out_of_range)])
def test_a_layer_whose_tensors_do_not_fit_together_is_named(method: str, change: Change, tmp_path: Path) -> None:
    folder = publish(DEMO, tmp_path / "made", {"quant_method": method, "bits": 4}, MAKERS[method])
    tensors = load_file(folder / SHARD)
    change(tensors)
    save_file(tensors, folder / SHARD)
    with pytest.raises(BadShard, match=r"layers\.0\.mlp\.down_proj"):
        open_weights(folder)


@pytest.mark.parametrize("part", ["weight_scale", "weight_shape", "weight_zero_point"])
def test_a_compressed_layer_that_lacks_a_part_is_named(part: str, tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    from published import compressed_layer

    kind = {"num_bits": 4, "strategy": "group", "group_size": 64, "symmetric": False}
    config = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
    folder = publish(DEMO, tmp_path / "made", config, lambda name, array: compressed_layer(name, array, kind))
    tensors = load_file(folder / SHARD)
    tensors[f"{LAYER}.{part}"] = tensors[f"{LAYER}.{part}"][:1].copy()
    save_file(tensors, folder / SHARD)
    with pytest.raises(BadShard, match=rf"layers\.0\.mlp\.down_proj\.{part}"):
        open_weights(folder)


@pytest.mark.parametrize("keep", [0, 7, 900, -1, -70_000])
def test_a_truncated_file_is_named(keep: int, tmp_path: Path) -> None:
    folder = publish(DEMO, tmp_path / "made", {"quant_method": "gptq", "bits": 4}, MAKERS["gptq"])
    path = folder / SHARD
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadShard, match=r"model\.safetensors is (truncated|damaged)"):
        BuildSpec.of(folder, None, Target.CPU)


def test_a_kv_cache_scheme_is_left_out_and_said_so(tmp_path: Path) -> None:
    quantization = {"quant_method": "compressed-tensors", "format": "dense", "kv_cache_scheme": {"num_bits": 8}}
    spec = BuildSpec.of(with_config(tmp_path / "made", quantization), None, Target.CPU)
    assert spec.notes == ("kv_cache_scheme is left out: KV is kept as --kv says.",)
    assert spec.precision == "fp32" and spec.format == ""


def test_the_table_has_every_method_that_is_read_or_refused_by_name() -> None:
    named = " ".join(row.format for row in support())
    assert all(method in named for method in (*READERS, *REFUSED, "GGUF"))


def test_a_calibration_of_codes_is_refused(tmp_path: Path) -> None:
    folder = publish(DEMO, tmp_path / "made", {"quant_method": "gptq", "bits": 4}, MAKERS["gptq"])
    calibration = CalibrationOrder.of(True, None, None, Precision.INT4, Target.CPU)
    with pytest.raises(BadArtifact, match="published in codes, which a build keeps: leave them out"):
        BuildSpec.of(folder, Precision.INT4, Target.CPU, calibration=calibration)
