"""One graph as a TensorRT network: parsed, its attention told what the parser leaves out, and built into a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.graph.attention import filled_of
from export.graph.vision_profile import Profile
from export.rtx.layer_report import Layer, layers_in
from export.rtx.profiles import shapes_of
from glmserve.contract import DecoderGraph, RowGroup
from glmserve.errors import BadArtifact


@dataclass(frozen=True)
class Built:
    """A plan and the layers that TensorRT made of the graph."""

    plan: Any
    layers: list[Layer]


def build_plan(trt: Any, graph: Path, shapes: Mapping[str, Any], capabilities: Sequence[str]) -> Built:
    """The plan of a graph for GPUs of these compute capabilities, or for all that TensorRT for RTX knows.

    `shapes` gives the sizes that the graph names by words (`Sizes`), or the shapes of its inputs (`Profile`).

    Raises BadArtifact with TensorRT's own words when it refuses a node or finds no kernel.
    """
    logger = _logger(trt)
    builder = trt.Builder(logger)
    network = parsed(trt, builder, logger, graph)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_flag(trt.BuilderFlag.STRICT_NANS)  # else 0 * x becomes 0, and the sampler sees no NaN
    config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # what a captured CUDA graph needs
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            name = f"SM{capability.replace('.', '')}"
            config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
    profile = builder.create_optimization_profile()
    wanted = _profile(network, shapes) if "T" in shapes else shapes
    for name, (least, usual, most) in wanted.items():
        profile.set_shape(name, least, usual, most)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BadArtifact(f"TensorRT for RTX {trt.__version__} builds no engine of {graph.name}: {logger.errors()}")
    return Built(plan, layers_in(logger.layers))


def parsed(trt: Any, builder: Any, logger: Any, graph: Path) -> Any:
    """The network of a graph, whose weights lie beside it; raises BadArtifact with what the parser says."""
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        faults = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise BadArtifact(f"TensorRT for RTX {trt.__version__} does not parse {graph.name}: {faults}")
    _tell_lengths(trt, network, parser)
    return network


def _profile(network: Any, sizes: Mapping[str, Any]) -> Profile:
    """The shapes of a network's inputs, from the sizes that its graph names by words."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    return {
        tensor.name: shapes_of(
            [tensor.get_dimension_name(axis) for axis in range(len(tensor.shape))], list(tensor.shape), sizes
        )
        for tensor in inputs
        if any(size < 0 for size in tensor.shape)
    }


def attentions_of(trt: Any, network: Any) -> list[Any]:
    """Every attention of a network."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    begins = [layer for layer in layers if layer.type == trt.LayerType.ATTENTION_INPUT]
    for layer in begins:
        layer.__class__ = trt.IAttentionInputLayer  # what the module's own documentation says of layers
    return [layer.attention for layer in begins]


def _tell_lengths(trt: Any, network: Any, parser: Any) -> None:
    """Gives each attention over KV its rows' lengths, and lets the last token of a row see all of it.

    The parser of 1.7.1 drops ONNX's `nonpad_kv_seqlen` without a word, and lines the causal mask up with the first
    token of a row: a decoded token would then see that one token only.
    """
    lengths: dict[str, Any] = {}
    for attention in attentions_of(trt, network):
        group = _group_of(attention.name)
        if group is None:
            continue
        if group.name not in lengths:
            filled = parser.get_layer_output_tensor(filled_of(group.index), 0)
            lengths[group.name] = network.add_cast(filled, trt.int32).get_output(0)
        attention.key_value_lengths = lengths[group.name]
        attention.causal_kind = trt.CausalMaskKind.LOWER_RIGHT
        attention.decomposable = False


def _group_of(attention: str) -> RowGroup | None:
    """The group of KV rows that an attention reads; None for the image encoder's."""
    groups = (DecoderGraph.DECODED, DecoderGraph.CHUNK)
    return next((group for group in groups if f".{group.name}." in attention), None)


def _logger(trt: Any) -> Any:
    """Keeps what goes wrong, and the list of layers that the builder tells at its end."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.layers = ""
            self._errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                self._errors.append(message)
            elif message.startswith("Layers:"):
                self.layers = message

        def errors(self) -> str:
            return " ".join(self._errors) or "it does not say why"

    return Logger()
