"""Which engines a build for TensorRT for RTX gets, and how they are written, without that library."""

from __future__ import annotations

import json
import re
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from shared_builds import DEMO, build_of_demo, copied
from typer.testing import CliRunner

from export.build.spec import BuildSpec
from export.checkpoint.weights import Weights
from export.cli import app
from export.errors import MissingTensorRt
from export.graph.builder import CONSTANT
from export.graph.decoder import Part
from export.graph.standard_ops import share, weights_in_files
from export.precision import Precision, Target, numbers_of
from export.rtx import engine_writer, library
from export.rtx.engine_writer import EngineWriter
from export.rtx.engines import Engine
from export.rtx.layer_report import faults, layers_in
from export.rtx.order import EngineOrder
from export.rtx.parts import parts_of, peak_bytes, title_of
from export.rtx.rounded import share_codes
from export.rtx.worker import Job
from glmserve.build.manifest import decoder_in, vision_in
from glmserve.build.rtx_engines import RtxEngines
from glmserve.errors import BadArtifact, DoesNotFit

QUIET = Console(quiet=True)
LAYER, EDGE = 406_927_360, 1_241_513_984
"""Bytes in bf16 of a layer of the real model, and of its embedding or head."""


def real_weights(part: Part) -> int:
    return LAYER * (part.last - part.first) + EDGE * (part.embeds + part.draws)


def test_the_full_model_is_built_in_8_gb() -> None:
    parts = parts_of(40, real_weights, EngineOrder())
    assert max(peak_bytes(real_weights(part)) for part in parts) <= 8_000_000_000
    assert len(parts) <= 15


@given(
    st.lists(st.integers(1, 900), min_size=1, max_size=60),
    st.integers(1, 900),
    st.integers(1, 900),
    st.integers(900, 5_000),
)
def test_parts_follow_one_another_and_hold_everything_once(layers: list[int], first: int, last: int, room: int) -> None:
    mega = 1_000_000

    def weigh(part: Part) -> int:
        return mega * (sum(layers[part.first : part.last]) + first * part.embeds + last * part.draws)

    order = EngineOrder(memory_bytes=peak_bytes(room * mega) + mega)
    parts = parts_of(len(layers), weigh, order)
    assert [part.embeds for part in parts] == [True] + [False] * (len(parts) - 1)
    assert [part.draws for part in parts] == [False] * (len(parts) - 1) + [True]
    assert [index for part in parts for index in range(part.first, part.last)] == list(range(len(layers)))
    assert all(peak_bytes(weigh(part)) <= order.memory_bytes for part in parts)
    for part, following in pairwise(parts):  # none is smaller than it need be
        least = Part(following.first, min(following.first + 1, following.last), following.embeds, False)
        assert peak_bytes(weigh(part) + weigh(least)) > order.memory_bytes - mega or least.first == least.last


def test_with_room_the_decoder_is_one_engine() -> None:
    assert parts_of(4, lambda part: 1000, EngineOrder()) == [Part.whole(4)]
    assert title_of(Part.whole(4)) == "embedding, layers 0 to 3, head and sampler"


def test_too_little_memory_names_what_needs_most_and_the_remedy() -> None:
    with pytest.raises(
        DoesNotFit, match=r"of the embedding alone takes 4,\d\d\d MB, and --build-memory is 2,000: raise"
    ):
        parts_of(40, real_weights, EngineOrder(memory_bytes=2_000_000_000))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--precision", "fp32"],
            r"fp32 has no engines .* no fused attention in fp32: add --precision bf16, fp16, int8",
        ),
        (["--precision", "bf16", "--compute-capability", "9.0"], r"9\.0: TensorRT for RTX builds for 8\.0, 8\.6.*cuda"),
        (["--precision", "bf16", "--compute-capability", ""], r"--compute-capability : TensorRT for RTX builds for"),
        (["--precision", "bf16", "--kv", "int8"], r"KV in int8 .* --kv at same"),
        (["--precision", "bf16", "--build-memory", "601"], r"the embedding alone takes .* MB.*--build-memory"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "build"])
def test_what_cannot_be_built_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, options: list[str], said: str
) -> None:
    monkeypatch.setattr(library, "version", lambda _: "1.7.1.116")
    out = tmp_path / "builds"
    command_line = [command, "--checkpoint", str(DEMO), "--out", str(out), "--target", "rtx", *options]
    done = CliRunner().invoke(app, command_line)
    assert done.exit_code == 3 and re.search(said, done.stderr), done.output
    assert not out.exists() or not list(out.glob("[!.]*"))


def test_the_engines_weights_are_the_builds_own_to_the_bit(tmp_path: Path) -> None:
    """Also those that are too small to lie in a file."""
    own = copied(build_of_demo(Precision.FP16, Target.CPU), tmp_path)
    spec = BuildSpec.of(DEMO, Precision.FP16, Target.RTX)
    ordered = spec.engines(spec.weights)
    assert ordered is not None
    (decoder,), vision = ordered
    for engine, path in ((decoder, decoder_in(own)), (vision, vision_in(own))):
        written = ir.load(path)
        share(engine.model, weights_in_files(written))
        names = [name for name in engine.model.graph.initializers if not name.startswith(CONSTANT)]
        assert len(names) > 40
        for name in names:
            found, right = (graph.initializers[name].const_value for graph in (engine.model.graph, written.graph))
            assert found is not None and right is not None and np.array_equal(found.numpy(), right.numpy()), name


def test_without_the_library_the_build_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> str:
        raise library.PackageNotFoundError

    monkeypatch.setattr(library, "version", missing)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    done = CliRunner().invoke(
        app, ["build", "--checkpoint", str(DEMO), "--out", str(tmp_path), "--target", "rtx", "--precision", "bf16"]
    )
    assert done.exit_code == 15 and "-r requirements/rtx.txt" in done.stderr
    with pytest.raises(MissingTensorRt, match=r"requirements/rtx\.txt"):
        library.load_tensorrt_rtx()


class Workshop:
    """Stands for the processes that build; `fails` are the plans that do not come to be."""

    def __init__(self) -> None:
        self.built: list[str] = []
        self.fails: set[str] = set()

    def __call__(self, path: Path) -> None:
        job = Job.read(path)
        assert Path(job.graph).is_file()
        if Path(job.plan).name in self.fails:
            raise BadArtifact("It was killed.")
        self.built.append(Path(job.plan).name)
        Path(job.report).write_text(json.dumps({"layers": [], "seconds": 1, "peak_bytes": 1}))
        Path(job.plan).write_bytes(b"plan")


@pytest.fixture
def writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[EngineWriter, Workshop, Path]:
    monkeypatch.setattr(engine_writer, "library_version", lambda: "1.7.1.116")
    workshop, folder = Workshop(), tmp_path / "1"
    numbers = numbers_of(Precision.BF16, Target.RTX)
    made = EngineWriter(folder, tmp_path / "scratch", EngineOrder(("8.9",)), numbers, QUIET, workshop)
    return made, workshop, folder


def engine(name: str) -> Engine:
    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 24}, name=name), ir_version=11)
    return Engine(name, name, model, {}, 0)


def test_what_is_built_already_is_not_built_again(writer: tuple[EngineWriter, Workshop, Path]) -> None:
    write, workshop, folder = writer
    decoder, vision = [engine("decoder.00.plan"), engine("decoder.01.plan")], engine("vision.plan")
    workshop.fails = {"decoder.01.plan"}
    write.write(vision, folder / "vision.onnx", {})
    write.write(decoder[0], folder / "decoder.onnx", {})
    with pytest.raises(BadArtifact, match=r"decoder\.01\.plan was not built\. It was killed\."):
        write.write(decoder[1], folder / "decoder.onnx", {})
    assert [path.name for path in folder.iterdir()] == ["rtx"]  # no graph is left behind
    workshop.fails = set()
    for left in ("decoder.00.rtx.onnx", "decoder.00.rtx.data"):  # by a kill between an engine and its graph's end
        (folder / left).write_bytes(b"")
    for one in (vision, *decoder):
        write.write(one, folder / "decoder.onnx", {})
    assert workshop.built == ["vision.plan", "decoder.00.plan", "decoder.01.plan"]
    assert [path.name for path in folder.iterdir()] == ["rtx"]
    assert write.finish(decoder, vision, 4096) == "tensorrt-rtx 1.7.1.116 for 8.9"
    engines = RtxEngines.read(folder / "rtx")
    assert engines.decoder == ["decoder.00.plan", "decoder.01.plan"] and engines.context == 4096


@pytest.mark.process
def test_a_process_that_is_killed_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_writer, "library_version", lambda: "1.7.1.116")
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -9 $$\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    numbers = numbers_of(Precision.BF16, Target.RTX)
    write = EngineWriter(tmp_path / "1", tmp_path / "scratch", EngineOrder(), numbers, QUIET)
    with pytest.raises(BadArtifact, match=r"ended with code -9.*--build-memory.*goes on from here"):
        write.write(engine("vision.plan"), tmp_path / "1" / "vision.onnx", {})


LISTED = """Layers:
Name: layers.0.attn.o_U146_myl1_19, LayerType: gemm, \
Inputs: [ { Name: a, Dimensions: [1,-1,256], Datatype: %s, Format: x }], \
Constants: [ { Name: w, Dimensions: [1,256,256], Datatype: %s, Format: x }, \
{ Name: alpha, Dimensions: [1], Datatype: Float, Format: x }], \
Outputs: [ { Name: b, Dimensions: [1,-1,256], Datatype: %s, Format: x }], TacticName: t, StreamId: 0, \
Metadata: [ONNX Layer: layers.0.attn.o][ONNX Layer: layers.0.attn.o.weight]
Name: %s, LayerType: kgen, Inputs: [], Constants: [], Outputs: [], TacticName: t, StreamId: 0, Metadata: \

"""


@pytest.mark.parametrize(
    ("types", "kernel", "wrong"),
    [
        (("BFloat16",) * 3, "_gemv_mha_v1_myl1_17", []),
        (("BFloat16", "BFloat16", "Float"), "_gemv_mha_v1_myl1_17", []),
        (("Float", "Float", "Float"), "_gemv_mha_v1_myl1_17", ["o_U146_myl1_19 computes in fp32, not in bf16"]),
        (("BFloat16", "Float", "BFloat16"), "_gemv_mha_v1_myl1_17", ["computes in fp32"]),
        (("BFloat16",) * 3, "__myl_Softmax_myl1_17", ["0 of 1 attentions are fused"]),
    ],
)
def test_a_layer_in_fp32_and_an_attention_in_pieces_are_faults(
    types: tuple[str, ...], kernel: str, wrong: list[str]
) -> None:
    layers = layers_in(LISTED % (*types, kernel))
    assert [layer.kind for layer in layers] == ["gemm", "kgen"]
    assert layers[0].nodes == ["layers.0.attn.o", "layers.0.attn.o.weight"]
    found = faults(layers, 1, "bf16")
    assert len(found) == len(wrong) and all(part in text for part, text in zip(wrong, found, strict=True))


def test_rounded_weights_that_are_unpacked_in_every_step_are_a_fault() -> None:
    apart = (LISTED % (*("BFloat16",) * 3, "_mha_x")).replace("LayerType: gemm", "LayerType: kgen")
    apart = apart.replace("layers.0.attn.o]", "layers.0.attn.o.unrounded]")
    assert faults(layers_in(apart), 1, "bf16") == ["layers.0.attn.o_U146_myl1_19 unpacks rounded weights in every step"]
    assert not faults(layers_in(apart.replace("LayerType: kgen", "LayerType: runtime_fusion", 1)), 1, "bf16")


@pytest.mark.parametrize("bits", [8, 4])
def test_signed_codes_stand_for_the_weights_they_were_made_of(bits: int) -> None:
    weights, name, shape = Weights.open(DEMO), "model.language_model.layers.1.mlp.down_proj.weight", (256, 512)
    lazy = weights.lazy_unblocked(name, shape, bits, ir.DataType.FLOAT, "codes")
    scales, codes = (tensor.numpy().astype(np.float32) for tensor in lazy)
    right = weights.read(name, shape).astype(np.float32)
    found = codes.T * scales[:, None] if bits == 8 else codes * np.repeat(scales, 32, axis=1)
    error = np.abs(found - right)
    if bits == 8:
        assert (error <= scales[:, None] * 0.501).all()
    assert np.sqrt((error**2).mean() / (right**2).mean()) < {8: 0.01, 4: 0.12}[bits]


def test_codes_that_lie_in_the_build_become_the_engines_own_4_bits() -> None:
    own = ir.load(decoder_in(build_of_demo(Precision.INT4, Target.CUDA)))
    spec = BuildSpec.of(DEMO, Precision.INT4, Target.RTX)
    ordered = spec.engines(spec.weights)
    assert ordered is not None
    (decoder,), _ = ordered
    initializers = decoder.model.graph.initializers
    name = "model.language_model.layers.2.mlp.gate_up_proj.weight.int4"
    computed = initializers[name].const_value.numpy().copy()  # type: ignore[union-attr]
    scales = initializers[f"{name}.scales"].const_value.numpy().copy()  # type: ignore[union-attr]
    share_codes(decoder.model, weights_in_files(own))
    assert np.array_equal(initializers[name].const_value.numpy(), computed)  # type: ignore[union-attr]
    assert np.array_equal(initializers[f"{name}.scales"].const_value.numpy(), scales)  # type: ignore[union-attr]


def test_the_picture_encoders_first_layer_may_be_in_fp32() -> None:
    text = (LISTED % ("Float", "Float", "Float", "_mha_x")).replace("layers.0.attn.o", "embed.patches")
    assert faults(layers_in(text), 1, "bf16") == []
