"""The layers of an engine as its builder lists them: what each computes, in which types, and what must not be so."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from export.graph.layers import UNROUNDED

_LAYER = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\], "
    r"(?:Constants: \[(?P<constants>.*?)\], )?Outputs: \[(?P<outputs>.*?)\], "
    r"(?:TacticName|ParameterType|TacticValue|StreamId):"
)
_TENSOR = re.compile(r"Dimensions: \[(?P<dims>[-\d,]*)\].*?Datatype: (?P<type>\w+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_FLOATS = {"Float": "fp32", "Half": "fp16", "BFloat16": "bf16", "FP8": "fp8"}
_ATTENTION = "_mha_"
"""In the names of the kernels that do a whole attention."""
_MEANT_FP32 = ("embed.", "positions.")
"""Nodes of the image encoder that compute in fp32 in every precision: they take numbers up to 255."""
_WIDE = 1
"""A number for each row, as a norm has, is not a tensor of activations."""


@dataclass(frozen=True)
class Layer:
    """One kernel: TensorRT's name and kind of it, the nodes of the graph that went into it, and the types that it
    multiplies or reads (`reads`) and writes (`writes`), numbers for a row or a whole tensor left out."""

    name: str
    kind: str
    nodes: list[str]
    reads: list[str]
    writes: list[str]

    @property
    def is_fused_attention(self) -> bool:
        """Whether it does all of an attention in one kernel."""
        return _ATTENTION in self.name

    @property
    def is_product(self) -> bool:
        """Whether it multiplies matrices."""
        return self.kind in ("gemm", "fc", "runtime_fusion")

    @property
    def unpacks(self) -> bool:
        """Whether it makes numbers of rounded weights and writes them out, for another kernel to multiply by."""
        return not self.is_product and any(node.endswith(f".{UNROUNDED}") for node in self.nodes)

    @property
    def is_meant_fp32(self) -> bool:
        """Whether the graph itself says fp32 of everything in it."""
        return all(node.startswith(_MEANT_FP32) for node in self.nodes)


def layers_in(text: str) -> list[Layer]:
    """The layers in the builder's list, which it tells at the verbosity DETAILED: what its inspector would print of the
    engine, which only a machine with a GPU can load."""
    found = (_layer(line) for line in text.splitlines())
    return [layer for layer in found if layer is not None]


def _layer(line: str) -> Layer | None:
    match = _LAYER.search(line)
    if match is None:
        return None
    reads = {*_types(match["inputs"]), *_types(match["constants"] or "")}
    return Layer(match["name"], match["kind"], _NODE.findall(line), sorted(reads), sorted(_types(match["outputs"])))


def _types(tensors: str) -> Iterable[str]:
    """The types of the tensors in a list that are more than a number for each row."""
    for found in _TENSOR.finditer(tensors):
        dims = [int(size) for size in found["dims"].split(",") if size]
        if dims and abs(dims[-1]) > _WIDE:
            yield _FLOATS.get(found["type"], found["type"].lower())


def faults(layers: Iterable[Layer], attentions: int, real: str) -> list[str]:
    """What is wrong with an engine that should have so many attentions and compute in `real` (fp16 or bf16)."""
    listed = list(layers)
    fused = sum(layer.is_fused_attention for layer in listed)
    found = [] if fused == attentions else [f"{fused} of {attentions} attentions are fused"]
    for layer in listed:
        if (layer.is_product or layer.is_fused_attention) and "fp32" in layer.reads and not layer.is_meant_fp32:
            found.append(f"{layer.name} computes in fp32, not in {real}")
        if layer.unpacks:
            found.append(f"{layer.name} unpacks rounded weights in every step")
    return found
