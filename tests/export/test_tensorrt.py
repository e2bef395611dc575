"""Engines are made once for each GPU, TensorRT and build; where none fits, ONNX Runtime serves and the log says so.

TensorRT itself is not here: what it is asked for is what these tests see.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from fake_tensorrt import PLAN, FakeTensorRt
from google.protobuf import text_format
from real_checkpoint import REAL, needs_real
from shared_builds import build_of_demo, copied
from tritonclient.grpc import model_config_pb2
from typer.testing import CliRunner

from export.build.vision_backend import VisionBackend
from export.cli import app
from export.graph.standard_ops import standard_of
from export.precision import Precision, Target
from export.tensorrt import engine_cache
from export.tensorrt.compile import profile_of
from export.tensorrt.engine_cache import make_engine, repository_to_serve
from glmserve.build.manifest import REPOSITORY_FOLDER, Manifest, vision_in
from glmserve.engine.server import open_checkpoint
from glmserve.engine.settings import EngineSettings
from glmserve.errors import BadArtifact
from glmserve.model.config import Checkpoint

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(build_of_demo(Precision.FP16, Target.CUDA, VisionBackend.TENSORRT), tmp_path_factory.mktemp("builds"))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeTensorRt:
    """One with an H100 and TensorRT."""
    trt = FakeTensorRt()
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    _put_gpu(monkeypatch, tmp_path, "9.0")
    return trt


def _put_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compute_capability: str) -> None:
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "nvidia-smi").write_text(f"#!/bin/sh\necho {compute_capability}\n", "utf-8")
    (tools / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")


def test_an_engine_is_strongly_typed_with_a_profile_from_the_limits(
    made: Path, machine: FakeTensorRt, tmp_path: Path
) -> None:
    folder = make_engine(made, tmp_path / "engines")
    assert folder == tmp_path / "engines" / made.name / "sm90-trt10.15.1"
    assert machine.flags == [1 << 1]
    checkpoint = Checkpoint.read(DEMO)
    assert machine.profiles == [profile_of(checkpoint)]
    most_pixels = checkpoint.images.max_pixels  # of its two frames
    batch, patches, _ = machine.profiles[0]["patches"][2]
    assert batch == 8 and 0.7 * most_pixels < patches * 14**2 <= most_pixels


def test_each_of_the_profiles_images_runs(made: Path) -> None:
    """TensorRT refuses a profile of which one does not: patches must be rows times columns, of one frame or two."""
    graph = standard_of(vision_in(made))
    session = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    profile = profile_of(Checkpoint.read(DEMO))
    types = {value.name: np.uint8 if "uint8" in value.type else np.float32 for value in session.get_inputs()}
    for which in range(3):
        feeds = {name: np.zeros(profile[name][which], kind) for name, kind in types.items()}
        (features,) = session.run(None, feeds)
        batch, rows, _ = profile["row_weights"][which]
        _, columns, _ = profile["column_weights"][which]
        assert features.shape[:2] == (batch, rows * columns // 4)


def test_the_engines_repository_is_the_build_but_for_the_image_encoder(
    made: Path, machine: FakeTensorRt, tmp_path: Path
) -> None:
    folder = make_engine(made, tmp_path / "engines")
    repository = folder / REPOSITORY_FOLDER
    for model in ("glm4v", "glm4v_whole"):
        assert (repository / model / "config.pbtxt").samefile(made / REPOSITORY_FOLDER / model / "config.pbtxt")
    open_checkpoint(repository / "glm4v" / "1", EngineSettings(require_certificate=False))
    assert Manifest.read(folder).digest == made.name  # what the Triton models look for two folders up
    assert (folder / "checkpoint" / "config.json").is_file() and (folder / "canary").is_dir()
    assert (repository / "vision_encoder" / "1" / "model.plan").read_bytes() == PLAN
    text = (repository / "vision_encoder" / "config.pbtxt").read_text("utf-8")
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert (
        config.backend == "tensorrt" and config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
    )
    assert [list(tensor.dims) for tensor in config.input] == [[-1, 588], [-1, 8], [-1, 8]]


def test_an_engine_that_is_there_is_not_made_again_and_timings_are_kept(
    made: Path, machine: FakeTensorRt, tmp_path: Path
) -> None:
    folder = make_engine(made, tmp_path / "engines")
    assert make_engine(made, tmp_path / "engines") == folder and len(machine.flags) == 1
    plan = folder / REPOSITORY_FOLDER / "vision_encoder" / "1" / "model.plan"
    plan.write_bytes(b"damaged")
    make_engine(made, tmp_path / "engines")
    assert plan.read_bytes() == PLAN and machine.timing_known == [b"", b"timings"]


def test_an_engine_that_another_command_finished_meanwhile_is_left_alone(
    made: Path, machine: FakeTensorRt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[os.stat_result] = []

    def slow_plan(build: Path, timing_cache: Path) -> bytes:
        monkeypatch.setattr(engine_cache, "vision_plan", own_plan)
        ends.append(_plan_in(make_engine(build, tmp_path / "engines")).stat())
        return own_plan(build, timing_cache)

    own_plan = engine_cache.vision_plan
    monkeypatch.setattr(engine_cache, "vision_plan", slow_plan)
    folder = make_engine(made, tmp_path / "engines")
    assert os.path.samestat(_plan_in(folder).stat(), ends[0])
    assert not list((tmp_path / "engines").glob(".partial-*"))


def _plan_in(folder: Path) -> Path:
    return folder / REPOSITORY_FOLDER / "vision_encoder" / "1" / "model.plan"


def test_another_gpu_or_another_tensorrt_falls_back_to_onnx_runtime_loudly(
    made: Path, machine: FakeTensorRt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, said = tmp_path / "engines", []
    folder = make_engine(made, kept)
    assert repository_to_serve(made, kept, said.append) == folder / REPOSITORY_FOLDER and not said
    monkeypatch.setattr(machine, "__version__", "10.16.0", raising=False)
    assert repository_to_serve(made, kept, said.append) == made / REPOSITORY_FOLDER
    monkeypatch.setattr(machine, "__version__", "10.15.1", raising=False)
    _put_gpu(monkeypatch, tmp_path, "8.6")
    assert repository_to_serve(made, kept, said.append) == made / REPOSITORY_FOLDER
    assert [text.startswith("NO TENSORRT ENGINE FITS") for text in said] == [True, True]
    assert "sm90-trt10.16.0" in said[0] and "sm86-trt10.15.1" in said[1] and "has sm90-trt10.15.1" in said[1]


def test_the_command_prints_the_repository_last_and_tells_of_the_decoder(
    made: Path, machine: FakeTensorRt, tmp_path: Path
) -> None:
    done = CliRunner().invoke(app, ["tensorrt", str(made), "--engines", str(tmp_path / "engines")])
    assert done.exit_code == 0, done.output
    assert Path(done.stdout.strip()) == tmp_path / "engines" / made.name / "sm90-trt10.15.1" / REPOSITORY_FOLDER
    assert "parses the decoder's standard graph" in done.stderr
    assert [path.name for path in machine.parsed] == ["vision.standard.onnx", "decoder.standard.onnx"]


@pytest.mark.parametrize("find", [False, True])
def test_without_tensorrt_the_command_says_what_is_missing(made: Path, find: bool, tmp_path: Path) -> None:
    arguments = ["tensorrt", made.name, "--out", str(made.parent), "--engines", str(tmp_path / "engines")]
    arguments += ["--find"] if find else []
    code = "import sys; sys.modules['tensorrt'] = None; from export.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == (0 if find else 15)
    assert "nvidia-smi does not run" in done.stderr or "tensorrt is missing" in done.stderr
    if find:
        assert Path(done.stdout.strip()) == made / REPOSITORY_FOLDER


def test_a_build_that_was_not_made_for_tensorrt_says_how_to_make_one(machine: FakeTensorRt, tmp_path: Path) -> None:
    plain = copied(build_of_demo(Precision.FP16, Target.CUDA), tmp_path / "builds")
    with pytest.raises(BadArtifact, match="--vision-backend tensorrt"):
        make_engine(plain, tmp_path / "engines")


@needs_real
def test_the_real_models_profile_covers_its_images() -> None:
    profile = profile_of(Checkpoint.read(REAL))
    assert profile["patches"] == ((1, 4, 588), (1, 1564, 588), (8, 2 * 156 * 156, 588)), "two frames"
    assert profile["row_weights"] == ((1, 2, 24), (1, 34, 24), (8, 156, 24))
