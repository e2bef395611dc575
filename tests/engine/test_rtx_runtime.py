"""Which runtime a build is opened on, and how engines are refused that cannot run here."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from fake_tensorrt_rtx import FakeStream, FakeTensorRtRtx
from shared_builds import DEMO, build_of_demo, copied

from export.checkpoint.weights import Weights
from export.graph.standard_ops import share, weights_in_files
from export.graph.vision_encoder import vision_graph
from export.graph.vision_profile import profile_of
from export.precision import FP32
from glmserve.build.manifest import Manifest, vision_in
from glmserve.build.rtx_engines import RtxEngines
from glmserve.engine import sessions
from glmserve.engine.runtime.rtx import open as opening
from glmserve.engine.runtime.rtx.engine import PlanEngine
from glmserve.engine.runtime.rtx.kernel_cache import KernelCache
from glmserve.engine.runtime.rtx.library import check_gpu, open_library
from glmserve.engine.runtime.rtx.vision import RtxVision
from glmserve.engine.server import check_target
from glmserve.engine.sessions import on_device, open_runtime
from glmserve.engine.settings import EngineSettings
from glmserve.errors import BadArtifact
from glmserve.model.config import Checkpoint


def engines(*capabilities: str, version: str = "1.7.1.116") -> RtxEngines:
    return RtxEngines("tensorrt-rtx", version, list(capabilities), 16, 4096, 128, ["decoder.00.plan"])


def manifest(target: str) -> Manifest:
    return Manifest("digest", "recipe", 6, "demo", "bf16", target, "same", {}, "tensorrt-rtx 1.7.1.116 for 8.9")


@pytest.mark.parametrize(
    ("capabilities", "gpu"), [(["8.6", "8.9"], "8.9"), ([], "8.0"), ([], "12.1"), (["12.0"], "12.0")]
)
def test_engines_for_this_gpu_or_for_all_are_taken(capabilities: list[str], gpu: str) -> None:
    check_gpu(engines(*capabilities), gpu)


@pytest.mark.parametrize(
    ("capabilities", "gpu", "said"),
    [
        (["8.6"], "8.9", r"8\.9, and .* are for 8\.6: export .*--target rtx --compute-capability 8\.9"),
        ([], "9.0", r"9\.0, and .* 8\.0, 8\.6, 8\.9, 12\.0, 12\.1: serve with GLM_ENGINE_RUNTIME=ort"),
        (["8.6"], "7.0", r"7\.0, and .* are for 8\.6: serve with GLM_ENGINE_RUNTIME=ort"),
    ],
)
def test_engines_for_other_gpus_are_refused_with_the_remedy(capabilities: list[str], gpu: str, said: str) -> None:
    with pytest.raises(BadArtifact, match=said):
        check_gpu(engines(*capabilities), gpu)


def test_another_version_of_the_library_is_named_with_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", SimpleNamespace(__version__="1.8.0.1"))
    with pytest.raises(BadArtifact, match=r"1\.7\.1\.116, and 1\.8\.0\.1 is installed: .*libs==1\.7\.1\.116"):
        open_library(engines())
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    with pytest.raises(BadArtifact, match=r"missing: pip install --no-deps -r requirements/rtx\.txt"):
        open_library(engines())


def test_a_build_without_engines_says_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match="--target rtx"):
        RtxEngines.read(tmp_path)
    (tmp_path / "engines.json").write_text('{"library": 1}')
    with pytest.raises(BadArtifact, match="cannot be read"):
        RtxEngines.read(tmp_path)


@pytest.mark.parametrize(
    ("runtime", "target", "chosen"),
    [
        ("auto", "rtx", "rtx"),
        ("auto", "cuda", "ort"),
        ("auto", "cpu", "ort"),
        ("ort", "rtx", "ort"),
        ("rtx", "cuda", "rtx"),
    ],
)
def test_the_setting_chooses_the_runtime_or_else_the_build_does(
    monkeypatch: pytest.MonkeyPatch, runtime: Any, target: str, chosen: str
) -> None:
    monkeypatch.setattr(sessions, "_OnOnnxRuntime", lambda *_: "ort")
    monkeypatch.setattr(sessions, "_OnTensorRtRtx", lambda *_: "rtx")
    assert open_runtime(manifest(target), Path("1"), EngineSettings(runtime=runtime, device="cuda")) == chosen


@pytest.mark.parametrize(("target", "device"), [("cpu", "cpu"), ("cuda", "cuda"), ("rtx", "cuda")])
def test_without_a_chosen_device_the_build_chooses_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture, target: str, device: str
) -> None:
    with caplog.at_level("INFO"):
        settings = on_device(EngineSettings(), manifest(target))
    assert settings.device == device and bool(settings.buckets) == (device == "cuda")
    assert settings.least_chunk_tokens == {"cpu": 8, "cuda": 256}[device]
    assert f"GLM_ENGINE_DEVICE=auto: {device}, for which build digest was exported" in caplog.text


def test_a_chosen_device_stays() -> None:
    assert on_device(EngineSettings(device="cpu"), manifest("cuda")).device == "cpu"


def test_a_build_for_rtx_runs_on_the_device_cuda() -> None:
    check_target(manifest("rtx"), "cuda")
    with pytest.raises(
        BadArtifact, match=r"exported for rtx, and GLM_ENGINE_DEVICE is cpu: set GLM_ENGINE_DEVICE=cuda"
    ):
        check_target(manifest("rtx"), "cpu")


def test_sizes_that_are_fixed_in_the_engines_bound_the_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened = SimpleNamespace(engines=engines(), memory=FakeStream().memory, plan_bytes=7)
    monkeypatch.setattr(opening.RtxRuntime, "open", lambda *_: opened)
    runtime = open_runtime(manifest("rtx"), tmp_path, EngineSettings(device="cuda", context_tokens=8192))
    bounded = runtime.bounded(EngineSettings(device="cuda", context_tokens=8192))
    assert (bounded.context_tokens, bounded.chunk_tokens, bounded.least_chunk_tokens) == (4096, 128, 128)
    assert runtime.weight_bytes == 7


@pytest.mark.parametrize(("chosen", "slots"), [({}, 4), ({"slots": 3}, 3), ({"slots": 16}, 16)])
def test_where_nobody_chose_the_slots_they_are_no_more_than_the_engines_decode_together(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chosen: dict[str, int], slots: int
) -> None:
    """What somebody chose stays, and is refused with the remedy; what nobody chose, memory may lower further."""
    opened = SimpleNamespace(engines=replace(engines(), rows=4), memory=FakeStream().memory, plan_bytes=7)
    monkeypatch.setattr(opening.RtxRuntime, "open", lambda *_: opened)
    settings = EngineSettings(device="cuda", **chosen)
    bounded = open_runtime(manifest("rtx"), tmp_path, settings).bounded(settings)
    assert bounded.slots == bounded.buckets[-1] == slots
    assert ("slots" in bounded.model_fields_set) == bool(chosen)
    assert EngineSettings.model_validate(dict(bounded)) == bounded


def test_where_there_is_no_gpu_the_engine_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Here the CUDA runtime, or a driver for it, is missing."""
    monkeypatch.setattr(opening, "open_library", lambda _: FakeTensorRtRtx({}))
    folder = tmp_path / "builds" / "digest" / "model_repository" / "glm4v" / "1"
    (folder / "rtx").mkdir(parents=True)
    engines().write(folder / "rtx")
    with pytest.raises(BadArtifact, match=r"CUDA runtime .*cannot be loaded|GPU 0 cannot be used|driver is missing"):
        opening.RtxRuntime.open(folder, 0)


def test_kernels_are_kept_beside_the_build_however_it_is_served(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The service points Triton at a fresh folder of links for each start."""
    build = tmp_path / "builds" / "digest"
    inside = Path("model_repository/glm4v/1/rtx")
    (build / inside).mkdir(parents=True)
    engines("8.9").write(build / inside)
    (build / inside / "vision.plan").write_bytes(b"plan")
    (tmp_path / "view" / inside).mkdir(parents=True)
    for name in ("engines.json", "vision.plan"):
        (tmp_path / "view" / inside / name).symlink_to(build / inside / name)
    monkeypatch.setattr(opening, "open_library", lambda _: FakeTensorRtRtx({}))
    monkeypatch.setattr(opening, "RtxGpu", lambda _: SimpleNamespace(compute_capability=lambda: "8.9"))
    opened = opening.RtxRuntime.open((tmp_path / "view" / inside).parent, 0)
    assert opened.cache._path == tmp_path / "builds" / "engines" / "digest" / "rtx-sm89-1.7.1.116.kernels"


def test_kv_is_in_the_type_that_the_engines_compute_in() -> None:
    found = {name: opening.kv_element(name) for name in ("fp16", "bf16", "int8", "int4")}
    assert found == {"fp16": 10, "bf16": 16, "int8": 16, "int4": 16}


def test_pictures_become_the_features_that_onnx_runtime_makes(tmp_path: Path) -> None:
    made = copied(build_of_demo(), tmp_path)
    checkpoint = Checkpoint.read(made / "checkpoint")
    model = vision_graph(checkpoint, Weights.open(DEMO), FP32, is_standard=True)
    share(model, weights_in_files(ir.load(vision_in(made))))
    graph = vision_in(made).with_name("standard.onnx")
    ir.save(model, graph)
    plan = tmp_path / "vision.plan"
    plan.write_text(str(graph))
    sizes = {"B": (1, 1, 8), "all_patches": (4, 16, 4096), "rows": (2, 4, 64), "columns": (2, 4, 64)}
    trt = FakeTensorRtRtx(sizes)
    engine = PlanEngine(trt, trt.Runtime(None), plan, KernelCache(tmp_path / "kernels"))
    vision = RtxVision(engine, FakeStream())
    own = ort.InferenceSession(str(vision_in(made)), providers=["CPUExecutionProvider"])
    numbers = np.random.default_rng(2)
    side = checkpoint.vision.table_side
    for batch, rows, columns in ((1, 4, 6), (2, 8, 4), (1, 2, 2)):
        patches = numbers.integers(0, 255, (batch, rows * columns, checkpoint.images.patch_bytes), np.uint8)
        weights = [numbers.random((batch, size, side), np.float32) for size in (rows, columns)]
        (right,) = own.run(None, {"patches": patches, "row_weights": weights[0], "column_weights": weights[1]})
        np.testing.assert_allclose(vision.run(patches, *weights), right, atol=1e-4)
    assert profile_of(checkpoint).keys() == set(engine.inputs)
