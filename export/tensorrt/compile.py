"""Makes a TensorRT engine of a build's image encoder on the machine that will serve it.

The network is strongly typed: TensorRT computes in the types that the graph names, and in no others.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from export.errors import MissingTensorRt
from export.graph.standard_ops import standard_of
from export.graph.vision_profile import profile_of
from glmserve.build.manifest import CHECKPOINT_FOLDER, decoder_in, vision_in
from glmserve.errors import BadArtifact
from glmserve.model.config import Checkpoint


def load_tensorrt() -> Any:
    """TensorRT's own Python module; raises MissingTensorRt."""
    try:
        return importlib.import_module("tensorrt")
    except ImportError:
        raise MissingTensorRt(
            "The Python package tensorrt is missing: pip install tensorrt, in the version of the server's own TensorRT."
        ) from None


def vision_plan(build: Path, timing_cache: Path) -> bytes:
    """The serialized engine of a build's image encoder; takes minutes, fewer where the timing cache knows the GPU.

    Raises MissingTensorRt, and BadArtifact when the build has no graph for TensorRT or TensorRT refuses it.
    """
    graph = _standard_graph(build, vision_in(build))
    trt = load_tensorrt()
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = _parsed(trt, builder, logger, graph)
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for name, shapes in profile_of(Checkpoint.read(build / CHECKPOINT_FOLDER)).items():
        profile.set_shape(name, *shapes)
    config.add_optimization_profile(profile)
    known = timing_cache.read_bytes() if timing_cache.is_file() else b""
    config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BadArtifact(f"TensorRT {trt.__version__} made no engine of {graph.name}; its log above says why.")
    timing_cache.parent.mkdir(parents=True, exist_ok=True)
    timing_cache.write_bytes(bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def decoder_faults(build: Path) -> list[str]:
    """What the installed TensorRT's parser says against the decoder's graph of standard operators; [] if nothing.

    No engine is made of it: it would have to write KV in place over memory that the engine owns.
    """
    trt = load_tensorrt()
    logger = trt.Logger(trt.Logger.ERROR)
    try:
        _parsed(trt, trt.Builder(logger), logger, _standard_graph(build, decoder_in(build)))
    except BadArtifact as error:
        return [error.message]
    return []


def _standard_graph(build: Path, own: Path) -> Path:
    graph = standard_of(own)
    if not graph.is_file():
        raise BadArtifact(f"Build {build.name} has no graph for TensorRT: build it with --vision-backend tensorrt.")
    return graph


def _parsed(trt: Any, builder: Any, logger: Any, graph: Path) -> Any:
    """The strongly typed network of a graph, its weights read from beside it; from TensorRT 11 on all are so typed."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        faults = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise BadArtifact(f"TensorRT {trt.__version__} does not parse {graph.name}: {faults}")
    return network
