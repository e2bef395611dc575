"""AWQ in the packing of its matrix multiplication (`gemm`): eight outputs a word, in an order of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from export.checkpoint.formats.bit_packing import AWQ_ORDER, in_awq_order, unpack_columns
from export.checkpoint.formats.grouped import PER_OUTPUT, GroupedCodes
from export.checkpoint.formats.published import PublishedTensor
from export.checkpoint.formats.quantization_config import QuantizationConfig
from export.checkpoint.formats.safetensors_layers import LayerTensors, layers_in
from export.checkpoint.stored_tensors import StoredTensor
from export.errors import BadShard

METHOD = "awq"
_BITS = 4
_REMEDY = "Save it with version gemm, or export the unquantised checkpoint."


def tensors_of(
    config: QuantizationConfig, stored: Mapping[str, StoredTensor], folder: Path
) -> dict[str, PublishedTensor]:
    """Every quantised weight by name. Raises BadArtifact for another packing, BadShard naming a layer whose tensors do
    not fit together."""
    packing, bits = config.word("version", "gemm"), config.word("bits", config.word("w_bit", "4"))
    if packing != "gemm":
        raise config.refused(f"version {packing} packs codes in another order, which is not read", _REMEDY)
    if bits != str(_BITS):
        raise config.refused(f"bits {bits} is not read, AWQ has 4", _REMEDY)
    layers = layers_in(stored, folder, lambda part: part == "qweight")
    return {layer.weight: _tensor(layer) for layer in layers}


def _tensor(layer: LayerTensors) -> PublishedTensor:
    words, scales = layer.shape("qweight"), layer.shape("scales")
    if len(words) != 2 or len(scales) != 2 or 0 in (*words, *scales):
        raise BadShard(f"{layer.name}: qweight {list(words)} and scales {list(scales)} are no matrices.")
    inputs, groups, out = words[0], *scales
    if words[1] * len(AWQ_ORDER) != out or inputs % groups:
        raise BadShard(
            f"{layer.name}: qweight {list(words)} and scales {list(scales)} are no layer of 4 bits. {_REMEDY}"
        )
    has_zeros = "qzeros" in layer
    if has_zeros:
        layer.check("qzeros", (groups, words[1]))

    def read(begin: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        zeros = _outputs(layer.mapped("qzeros"), begin, end) if has_zeros else None
        held = layer.mapped("scales")[:, begin:end]
        return _outputs(layer.mapped("qweight"), begin, end), held.T.astype(np.float32), zeros

    group = PER_OUTPUT if groups == 1 else inputs // groups
    made = GroupedCodes((out, inputs), _BITS, group, read, has_zeros)
    return made.published(layer.file("qweight"), layer.stored_bytes)


def _outputs(words: np.ndarray, begin: int, end: int) -> np.ndarray:
    """Codes u8 [rows, groups or inputs] of the outputs from begin to end, of words whose eight codes are outputs."""
    count = len(AWQ_ORDER)
    first, last = begin // count, -(-end // count)
    codes = in_awq_order(unpack_columns(words[:, first:last], _BITS))
    turned: np.ndarray = np.ascontiguousarray(codes[:, begin - first * count : end - first * count].T)
    return turned
