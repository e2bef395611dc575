"""`build --target rtx` makes the demo's engines with the real library, for three generations of GPUs, without a GPU."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
from rtx_builds import CAPABILITIES, SIZES, needs_tensorrt_rtx, rtx_build_of_demo
from shared_builds import DEMO, build_of_demo, copied

from export.checkpoint.weights import Weights
from export.graph.decoder import Part, decoder_graph
from export.graph.standard_ops import share, weights_in_files
from export.graph.vision_encoder import vision_graph
from export.precision import Numbers, Precision, Target, numbers_of
from export.rtx.layer_report import Layer, faults
from export.rtx.library import load_tensorrt_rtx
from export.rtx.network import attentions_of, build_plan, parsed
from export.rtx.profiles import decoder_sizes
from export.rtx.rounded import put_aside
from glmserve.build.manifest import Manifest, decoder_in, vision_in
from glmserve.build.rtx_engines import RtxEngines
from glmserve.model.config import Checkpoint

pytestmark = needs_tensorrt_rtx


@pytest.fixture(scope="module")
def made() -> Path:
    return rtx_build_of_demo()


@pytest.fixture(scope="module")
def folder(made: Path) -> Path:
    return decoder_in(made).parent / "rtx"


def test_the_manifest_names_every_engine_and_what_made_it(made: Path, folder: Path) -> None:
    manifest = Manifest.read(made)
    manifest.check(made)
    version = load_tensorrt_rtx().__version__
    assert manifest.target == "rtx" and manifest.engines == f"tensorrt-rtx {version} for 8.6, 8.9, 12.0"
    inside = sorted(path.name for path in folder.iterdir())
    assert inside == ["decoder.00.plan", "engines.json", "layers.json", "vision.plan"]
    assert {f"model_repository/glm4v/1/rtx/{name}" for name in inside} <= manifest.files.keys()
    assert not list(made.rglob("*.rtx.onnx"))
    engines = RtxEngines.read(folder)
    assert (engines.rows, engines.context, engines.chunk_tokens) == (SIZES.rows, SIZES.context, SIZES.chunk_tokens)
    assert engines.decoder == ["decoder.00.plan"] and engines.compute_capabilities == list(CAPABILITIES)


def test_every_attention_is_fused_and_no_product_is_in_fp32(made: Path, folder: Path) -> None:
    checkpoint = Checkpoint.read(made / "checkpoint")
    reports = {report["plan"]: report["layers"] for report in json.loads((folder / "layers.json").read_text())}
    expected = {"vision.plan": checkpoint.vision.depth, "decoder.00.plan": 2 * checkpoint.text.layers}
    assert reports.keys() == expected.keys()
    for plan, attentions in expected.items():
        layers = [Layer(**layer) for layer in reports[plan]]
        assert faults(layers, attentions, "bf16") == []
        assert sum(layer.is_product for layer in layers) >= 4 * attentions / 2
        nodes = {node for layer in layers for node in layer.nodes}
        assert {"layers.0.attn.o", "head"} <= nodes or {"blocks.0.attn", "merger.norm"} <= nodes


def test_fp16_has_fused_attention_too(tmp_path: Path) -> None:
    made = copied(build_of_demo(Precision.FP16, Target.CUDA), tmp_path)
    graph = _graph(made, Precision.FP16, Part(3, 4, embeds=False, draws=False))
    sizes = decoder_sizes(SIZES, Checkpoint.read(made / "checkpoint").text)
    layers = build_plan(load_tensorrt_rtx(), graph, sizes, CAPABILITIES).layers
    assert faults(layers, 2, "fp16") == [] and any("fp16" in layer.reads for layer in layers)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 4])
def test_rounded_weights_are_multiplied_as_they_are(tmp_path: Path, bits: int) -> None:
    """No kernel unpacks them for another."""
    numbers = replace(numbers_of(Precision.BF16, Target.RTX), bits=bits)
    checkpoint = Checkpoint.read(DEMO)
    part = Part(3, 4, embeds=False, draws=True)
    model = decoder_graph(checkpoint, Weights.open(DEMO), numbers, True, part, SIZES.context)
    graph = tmp_path / "decoder.onnx"
    put_aside(model, graph)
    ir.save(model, graph)
    layers = build_plan(load_tensorrt_rtx(), graph, decoder_sizes(SIZES, checkpoint.text), CAPABILITIES).layers
    assert faults(layers, 2, "bf16") == []
    products = [layer for layer in layers if any(node.endswith(".unrounded") for node in layer.nodes)]
    assert len(products) == 5, products  # q, k and v together, o, gate and up, down, the head


def test_each_attention_over_kv_is_told_its_rows_lengths_and_sees_all_of_them(made: Path, tmp_path: Path) -> None:
    """The parser drops them: a decoded token would see its row's first token only."""
    trt = load_tensorrt_rtx()
    network = _network(_graph(copied(made, tmp_path), Precision.BF16))
    attentions = attentions_of(trt, network)
    assert len(attentions) == 8
    for attention in attentions:
        assert attention.causal_kind == trt.CausalMaskKind.LOWER_RIGHT
        assert attention.key_value_lengths is not None and attention.key_value_lengths.dtype == trt.int32
        assert not attention.decomposable


def test_the_picture_encoders_attention_sees_every_patch(made: Path, tmp_path: Path) -> None:
    trt = load_tensorrt_rtx()
    copy = copied(made, tmp_path)
    model = vision_graph(*_inputs(made, Precision.BF16), is_standard=True)
    share(model, weights_in_files(ir.load(vision_in(copy))))
    graph = vision_in(copy).with_name("looked-at.onnx")
    ir.save(model, graph)
    kinds = [attention.causal_kind for attention in attentions_of(trt, _network(graph))]
    assert kinds == [trt.CausalMaskKind.NONE] * 4


def test_the_samplers_test_for_broken_numbers_is_left_in_the_engine(folder: Path) -> None:
    """Without STRICT_NANS 0 * x may become 0, and no NaN is ever seen."""
    reports = {report["plan"]: report["layers"] for report in json.loads((folder / "layers.json").read_text())}
    nodes = {node for layer in reports["decoder.00.plan"] for node in layer["nodes"]}
    for value in ("hidden", "values"):
        assert {f"sampler.{value}_times_0", f"sampler.{value}_is_broken"} <= nodes


def _inputs(made: Path, precision: Precision) -> tuple[Checkpoint, Weights, Numbers]:
    return Checkpoint.read(made / "checkpoint"), Weights.open(DEMO), numbers_of(precision, Target.RTX)


def _graph(made: Path, precision: Precision, part: Part | None = None) -> Path:
    """The decoder's graph for an engine, or a part of it, beside the weights of a build that may be altered."""
    checkpoint, weights, numbers = _inputs(made, precision)
    model = decoder_graph(checkpoint, weights, numbers, is_standard=True, part=part, context=SIZES.context)
    own = decoder_in(made)
    share(model, weights_in_files(ir.load(own)))
    ir.save(model, own.with_name("looked-at.onnx"))
    return own.with_name("looked-at.onnx")


def _network(graph: Path) -> Any:
    trt = load_tensorrt_rtx()
    logger = trt.Logger(trt.Logger.ERROR)
    return parsed(trt, trt.Builder(logger), logger, graph)
