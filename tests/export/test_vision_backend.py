"""What a build has in Triton's model repository for each program that can run the image encoder.

Triton's own description of a model's configuration is the judge: the server at hand has the Python backend only.
"""

from __future__ import annotations

import queue
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from google.protobuf import text_format
from rich.console import Console
from rtx_builds import needs_tensorrt_rtx
from tritonclient.grpc import model_config_pb2

from export.build.pipeline import build
from export.build.vision_backend import VisionBackend
from export.precision import Precision, Target
from gateway.triton.backend import GenerateRequest
from gateway.triton.tensors import tensors_of
from glmserve.build.manifest import REPOSITORY_FOLDER, VISION_GRAPH
from glmserve.contract import DECODER_MODEL, IMAGE_FEATURES, VISION_INPUTS, VISION_MODEL
from glmserve.engine import server, sessions
from glmserve.engine.request import Done, Event
from glmserve.model.config import Checkpoint
from glmserve.model.image_processor import Grid
from glmserve.model.position_embedding import VisionArrays
from glmserve.sampling_parameters import Sampling

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"


def _model_folder(tmp_path: Path, backend: VisionBackend, target: Target = Target.CPU) -> Path:
    made = build(DEMO, tmp_path / "builds", Console(quiet=True), Precision.FP16, target, backend)
    return made / REPOSITORY_FOLDER / VISION_MODEL


def _config(folder: Path) -> model_config_pb2.ModelConfig:
    return text_format.Parse((folder / "config.pbtxt").read_text("utf-8"), model_config_pb2.ModelConfig())


@pytest.mark.parametrize("target", [Target.CPU, Target.CUDA, pytest.param(Target.RTX, marks=needs_tensorrt_rtx)])
def test_the_onnxruntime_backend_finds_a_graph_with_the_shapes_of_its_configuration(
    tmp_path: Path, target: Target
) -> None:
    folder = _model_folder(tmp_path, VisionBackend.ONNXRUNTIME, target)
    config, graph = _config(folder), ir.load(folder / "1" / "model.onnx").graph
    assert config.backend == "onnxruntime" and config.name == VISION_MODEL and config.max_batch_size == 8
    groups = model_config_pb2.ModelInstanceGroup
    assert config.instance_group[0].kind == (groups.KIND_GPU if target is Target.CUDA else groups.KIND_CPU)
    assert not (folder / "1" / "model.py").exists() and config.HasField("dynamic_batching")
    for tensors, values in ((config.input, graph.inputs), (config.output, graph.outputs)):
        sizes = {tensor.name: list(tensor.dims) for tensor in tensors}
        assert len(values) == len(sizes)
        for value in values:  # the batch axis is not among Triton's dims
            assert value.shape is not None and value.name is not None
            assert sizes[value.name] == [size if isinstance(size, int) else -1 for size in value.shape[1:]]
    assert [tensor.name for tensor in config.input] == [tensor.name for tensor in VISION_INPUTS]
    assert config.output[0].name == IMAGE_FEATURES.name


@pytest.mark.parametrize("backend", [VisionBackend.ENGINE, VisionBackend.TENSORRT])
def test_the_engine_reads_images_until_triton_has_an_engine(tmp_path: Path, backend: VisionBackend) -> None:
    folder = _model_folder(tmp_path, backend)
    assert not folder.exists() and (folder.parent / DECODER_MODEL / "1" / VISION_GRAPH).is_file()


def test_builds_for_different_backends_are_different_builds(tmp_path: Path) -> None:
    assert len({_model_folder(tmp_path, backend).parents[1].name for backend in VisionBackend}) == 3


def test_where_triton_reads_images_the_engine_asks_it_and_loads_no_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_encoder(*_: object) -> None:
        raise AssertionError("the engine opened a image encoder")

    monkeypatch.setattr(sessions, "OrtVision", no_encoder)
    monkeypatch.setenv("GLM_ENGINE_CONTEXT_TOKENS", "64")
    folder = _model_folder(tmp_path, VisionBackend.ONNXRUNTIME).parent / DECODER_MODEL / "1"
    monkeypatch.setenv("GLM_ENGINE_REQUIRE_CERTIFICATE", "false")
    asked: list[tuple[int, ...]] = []

    def ask_triton(arrays: VisionArrays) -> np.ndarray:
        asked.append(arrays[0].shape)
        return np.zeros((4, checkpoint.text.hidden), np.float32)

    checkpoint = Checkpoint.read(DEMO)
    opened = server.EngineServer.open(folder, ask_triton, lambda _metric, _amount: None)
    try:
        answer: queue.SimpleQueue[Event] = queue.SimpleQueue()
        ids = np.array([1, *[checkpoint.image_token_id] * 4, 2])
        patches = np.zeros((16, checkpoint.images.patch_bytes), np.uint8)
        request = GenerateRequest("r1", ids, patches, (Grid(4, 4),), Sampling(max_tokens=1), deadline_s=20.0)
        tensors = {tensor.name: values for tensor, values in tensors_of(request)}
        opened.accept(tensors, lambda events: [answer.put(event) for event in events], lambda: False)
        while not (event := answer.get(timeout=30)).is_last:
            pass
    finally:
        opened.close()
    assert isinstance(event, Done) and asked == [(16, checkpoint.images.patch_bytes)]
