"""A checkpoint that is published quantised becomes a build that keeps its codes and answers as its numbers do."""

from __future__ import annotations

import json
import shutil
import sys
from functools import cache
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from gguf_checkpoints import publish_gguf
from published_demo import MAKERS, published_demo
from random_checkpoints import DEMO, needs_torch
from rich.console import Console
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from export.build.inventory import inventory
from export.build.pipeline import build
from export.build.spec import BuildSpec
from export.checkpoint.hub import Source
from export.cli import app
from export.precision import KvPrecision, Precision, Target
from export.verify.candidate import Candidate
from export.verify.cases import input_ids, standard_cases
from glmserve.build.manifest import Manifest, decoder_in
from glmserve.engine.runtime.device import Host
from glmserve.errors import BadArtifact

QUIET = Console(quiet=True)
VERIFIED = ("fp8", "gptq-act-order", "awq", "gguf-q4_k")
LAYER_BY_LAYER, WHOLE = 1 << 10, 1 << 40
"""Memory of a machine that runs a checkpoint so."""
PRECISION = {"w8a8": "int8", "fp8": "int8", "gguf-q8_0": "int8"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("published"))


class Made:
    """Checkpoints and builds of a test run, each made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoint = cache(self._checkpoint)
        self.build = cache(self._build)

    def _checkpoint(self, name: str) -> Path:
        return published_demo(name, self.folder / name)

    def _build(self, name: str, precision: Precision | None = None) -> Path:
        return build(self.checkpoint(name), self.folder / f"{name}-{precision}", QUIET, precision)


def logits(folder: Path) -> list[np.ndarray]:
    candidate = Candidate(folder, 1, 512)
    found = []
    for case in standard_cases()[:3]:
        prompt = candidate.prompt(input_ids(candidate, case), list(case.images))
        found.append(candidate.prefill(prompt, row=0, chunk_tokens=1 << 20)[-1])
    return found


@pytest.mark.build
@pytest.mark.parametrize("name", MAKERS)
def test_a_build_of_its_codes_answers_as_one_of_its_numbers(name: str, made: Made) -> None:
    kept, numbers = made.build(name), made.build(name, Precision.FP32)
    assert Manifest.read(kept).precision == PRECISION.get(name, "int4")
    assert Manifest.read(numbers).precision == "fp32"
    for found, wanted in zip(logits(kept), logits(numbers), strict=True):
        assert np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted)


@pytest.mark.build
@pytest.mark.parametrize("name", [name for name in MAKERS if name != "fp8"])
def test_every_layer_keeps_the_codes_it_is_published_in(name: str, made: Made) -> None:
    folder = made.build(name)
    assert Manifest.read(folder).format.endswith("codes as published")
    spec = BuildSpec.of(made.checkpoint(name), None, Target.CPU)
    model = ir.load(decoder_in(folder))
    kinds = [node.op_type for node in model.graph]
    layers = 4 * 6
    multiplied = kinds.count("MatMulNBits") + kinds.count("MatMulIntegerToFloat")
    assert multiplied == layers + ("gguf" in name)
    assert [fate.fate for fate in spec.fates if fate.scheme != "not quantised"].count("as they are") >= 1


@pytest.mark.build
def test_what_cannot_be_kept_is_rounded_anew_and_said_so(made: Made) -> None:
    spec = BuildSpec.of(made.checkpoint("fp8"), None, Target.CPU)
    said = " ".join(fate.sentence for fate in spec.fates)
    assert "rounded anew to 8 bits, because no operator multiplies by FP8" in said
    assert Manifest.read(made.build("fp8")).format == "compressed-tensors, rounded anew"


@pytest.mark.build
@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("precision", [None, Precision.INT4, Precision.INT8])
def test_plan_foretells_every_file_to_the_byte(name: str, precision: Precision | None, made: Made) -> None:
    foretold = inventory(BuildSpec.of(made.checkpoint(name), precision, Target.CPU)).files
    folder = made.build(name, precision)
    for path, size in foretold.items():
        if not path.endswith(("manifest.json", "image.png", "canary.json")):
            assert (folder / path).stat().st_size == size, path


@pytest.mark.build
@pytest.mark.parametrize("name", ["gptq", "w8a8", "gguf-q4_k"])
@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4, Precision.FP16])
def test_a_precision_that_is_asked_for_holds(name: str, precision: Precision, made: Made) -> None:
    folder = made.build(name, precision)
    assert Manifest.read(folder).precision == precision
    most = {Precision.INT8: 0.05, Precision.INT4: 0.3, Precision.FP16: 0.02}[precision]
    for found, wanted in zip(logits(folder), logits(made.build(name, Precision.FP32)), strict=True):
        assert np.linalg.norm(found - wanted) < most * np.linalg.norm(wanted)


@pytest.mark.build
def test_kv_in_8_bits_and_other_targets_are_built_too(made: Made, tmp_path: Path) -> None:
    for name in ("gptq", "gguf-q4_k"):
        folder = build(made.checkpoint(name), tmp_path / "kv", QUIET, None, kv=KvPrecision.INT8)
        assert Manifest.read(folder).kv == "int8"
        folder = build(made.checkpoint(name), tmp_path / "cuda", QUIET, None, Target.CUDA)
        assert Manifest.read(folder).target == "cuda"


@needs_torch
@pytest.mark.build
@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "memory"), [*((name, LAYER_BY_LAYER) for name in VERIFIED), ("w4a16", WHOLE), ("gguf-q4_k", WHOLE)]
)
def test_verify_compares_with_the_numbers_that_the_codes_stand_for(
    name: str, memory: int, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Host, "total_memory_bytes", lambda _: memory)
    folder = made.build(name)
    options = ["verify", str(folder), "--checkpoint", str(made.checkpoint(name)), "--samples", "1"]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.output[-2000:]
    certificate = json.loads((folder / "certificate.json").read_text("utf-8"))
    assert certificate["passed"] and certificate["format"] == Manifest.read(folder).format
    assert certificate["format"] in (folder / "certificate.html").read_text("utf-8")


@pytest.mark.build
def test_plan_shows_what_is_kept_and_what_is_not(made: Made, tmp_path: Path) -> None:
    options = ["plan", "--checkpoint", str(made.checkpoint("gptq")), "--out", str(tmp_path), "--no-speed"]
    shown = CliRunner().invoke(app, options)
    assert shown.exit_code == 0 and "4 bits, groups of 128, zero points" in shown.output, shown.output
    assert "as they are" in shown.output and "not quantised" in shown.output
    told = json.loads(CliRunner().invoke(app, [*options, "--json"]).output)
    kept = next(entry for entry in told["published"] if entry["fate"] == "as they are")
    assert kept["format"] == "GPTQ" and kept["tensors"] == 24 and kept["stored_bytes"] > 0


@pytest.mark.build
def test_plan_measures_speed_with_the_published_blocks(made: Made, tmp_path: Path) -> None:
    for name in ("gptq-act-order", "gguf-q4_k", "w8a8"):
        options = ["plan", "--checkpoint", str(made.checkpoint(name)), "--out", str(tmp_path)]
        shown = CliRunner().invoke(app, options)
        assert shown.exit_code == 0 and "Serving speed on this machine" in shown.output, shown.output


@pytest.mark.build
def test_torch_and_the_formats_packages_are_not_needed(made: Made) -> None:
    foreign = {"torch", "transformers", "compressed_tensors", "gguf"}
    held = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in foreign}
    try:
        for name in ("w4a16", "gguf-q4_k"):
            BuildSpec.of(made.checkpoint(name), None, Target.CPU)
        assert not {name.split(".")[0] for name in sys.modules} & foreign
    finally:
        sys.modules.update(held)


@pytest.mark.slow
def test_a_quantised_checkpoint_for_tensorrts_own_backend_is_refused(made: Made) -> None:
    from export.build.vision_backend import VisionBackend

    with pytest.raises(BadArtifact, match="has no form that TensorRT parses"):
        BuildSpec.of(made.checkpoint("gptq"), None, Target.CUDA, VisionBackend.TENSORRT)


@pytest.mark.build
def test_an_adapter_takes_the_codes_of_the_layers_that_it_changes_and_of_no_other(made: Made, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["o_proj"]}
    config |= {"layers_to_transform": [1], "layers_pattern": "layers"}
    (adapter / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    changed = "base_model.model.model.language_model.layers.1.self_attn.o_proj"
    random = np.random.default_rng(0)
    low_rank = {"lora_A": (2, 256), "lora_B": (256, 2)}
    save_file(
        {f"{changed}.{side}.weight": random.normal(size=shape).astype(np.float32) for side, shape in low_rank.items()},
        adapter / "adapter_model.safetensors",
    )
    adapters = [Source(adapter, "adapter")]
    checkpoint = made.checkpoint("gptq")
    spec = BuildSpec.of(checkpoint, None, Target.CPU, adapters=adapters)
    told = {fate.fate: fate.tensors for fate in spec.fates}
    assert told["as they are"] == 23 and told["rounded anew to 8 bits, because an adapter changes them"] == 1
    folder = build(checkpoint, tmp_path / "builds", QUIET, None, adapters=adapters)
    for path, size in inventory(spec).files.items():
        if path.endswith((".onnx", ".data")):
            assert (folder / path).stat().st_size == size, path
    numbers = build(checkpoint, tmp_path / "builds", QUIET, Precision.FP32, adapters=adapters)
    plain = logits(made.build("gptq"))
    for found, wanted, without in zip(logits(folder), logits(numbers), plain, strict=True):
        assert np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted)
        assert np.linalg.norm(without - wanted) > 0.1 * np.linalg.norm(wanted)


@pytest.mark.build
def test_a_head_that_is_tied_to_a_table_in_codes_multiplies_by_them(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    tied = tmp_path / "tied"
    tied.mkdir()
    for path in DEMO.iterdir():
        if path.suffix in (".json", ".jinja"):
            shutil.copyfile(path, tied / path.name)
    config = json.loads((tied / "config.json").read_text("utf-8")) | {"tie_word_embeddings": True}
    (tied / "config.json").write_text(json.dumps(config), "utf-8")
    tensors = load_file(DEMO / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, tied / "model.safetensors")
    checkpoint = publish_gguf(tied, tmp_path / "gguf", "Q8_0")
    kept = build(checkpoint, tmp_path / "builds", QUIET, None)
    numbers = build(checkpoint, tmp_path / "builds", QUIET, Precision.FP32)
    for found, wanted in zip(logits(kept), logits(numbers), strict=True):
        assert np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted)
