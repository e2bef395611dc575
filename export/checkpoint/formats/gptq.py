"""GPTQ, as AutoGPTQ and GPTQModel write it: codes packed along the inputs, zero points along the outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from export.checkpoint.formats.bit_packing import WORD_BITS, unpack_columns, unpack_rows
from export.checkpoint.formats.grouped import PER_OUTPUT, GroupedCodes
from export.checkpoint.formats.published import PublishedTensor
from export.checkpoint.formats.quantization_config import QuantizationConfig
from export.checkpoint.formats.safetensors_layers import LayerTensors, layers_in
from export.checkpoint.stored_tensors import StoredTensor
from export.errors import BadShard

METHOD = "gptq"
_SECOND = "gptq_v2"
_FORMATS = ("", "gptq", _SECOND)
_BITS = (2, 4, 8)
_ONE_IN_EACH = {2: 0x55555555, 4: 0x11111111, 8: 0x01010101}
_REMEDY = "Save it as gptq or gptq_v2 in 2, 4 or 8 bits, or export the unquantised checkpoint."


def tensors_of(
    config: QuantizationConfig, stored: Mapping[str, StoredTensor], folder: Path
) -> dict[str, PublishedTensor]:
    """Every quantised weight by name. Raises BadArtifact for another packing, BadShard naming a layer whose tensors do
    not fit together."""
    packing = config.word("checkpoint_format")
    if packing not in _FORMATS:
        raise config.refused(f"checkpoint_format {packing} is not read, only gptq and gptq_v2", _REMEDY)
    layers = layers_in(stored, folder, lambda part: part == "qweight")
    return {layer.weight: _tensor(layer, packing == _SECOND) for layer in layers}


def _tensor(layer: LayerTensors, is_second: bool) -> PublishedTensor:
    """`is_second`: zero points as they are; the first version stores them less one."""
    groups, out = _two_sizes(layer, "scales")
    word_rows, columns = _two_sizes(layer, "qweight")
    zero_columns = _two_sizes(layer, "qzeros")[1]
    bits = WORD_BITS * zero_columns // out if out else 0
    if columns != out or bits not in _BITS or layer.shape("qzeros") != (groups, -(-out * bits // WORD_BITS)):
        raise BadShard(
            f"{layer.name}: qweight {list(layer.shape('qweight'))}, qzeros {list(layer.shape('qzeros'))} and scales "
            f"{list(layer.shape('scales'))} are no layer of 2, 4 or 8 bits. {_REMEDY}"
        )
    inputs = word_rows * WORD_BITS // bits
    of_input = _groups(layer, inputs, groups)
    group = PER_OUTPUT if groups == 1 else _group_size(layer, inputs, groups, of_input)

    def read(begin: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        codes = unpack_rows(layer.mapped("qweight")[:, begin:end], bits)
        zeros = _zeros(layer.mapped("qzeros"), bits, is_second)[:, begin:end]
        scales = layer.mapped("scales")[:, begin:end]
        return codes, scales.T.astype(np.float32), np.ascontiguousarray(zeros.T)

    made = GroupedCodes((out, inputs), bits, group, read, has_zeros=True, groups=of_input)
    return made.published(layer.file("qweight"), layer.stored_bytes)


def _zeros(words: np.ndarray, bits: int, is_second: bool) -> np.ndarray:
    """Zero points u8 [groups, out]. Taking one from each borrowed across the word, so adding it carries across it."""
    held = np.ascontiguousarray(words).view(np.uint32)
    if not is_second:
        held = held + np.uint32(_ONE_IN_EACH[bits])
    return unpack_columns(held.view(np.int32), bits)


def _two_sizes(layer: LayerTensors, part: str) -> tuple[int, int]:
    shape = layer.shape(part)
    if len(shape) != 2 or 0 in shape:
        raise BadShard(f"{layer.name}.{part} has the shape {list(shape)}, not two sizes.")
    return shape[0], shape[1]


def _group_size(layer: LayerTensors, inputs: int, groups: int, of_input: np.ndarray | None) -> int:
    """Inputs of a group; the last may be cut short."""
    if of_input is not None:
        size = int(np.bincount(of_input, minlength=groups).max())
        are_whole = np.array_equal(np.sort(of_input), np.arange(inputs) // size)
        return size if are_whole else -(-inputs // groups)
    if inputs % groups:
        raise BadShard(f"{layer.name}: {inputs} inputs make no {groups} groups of one size, and there is no g_idx.")
    return inputs // groups


def _groups(layer: LayerTensors, inputs: int, groups: int) -> np.ndarray | None:
    """Each input's group, which act-order mixes; None where the file does not say."""
    if "g_idx" not in layer:
        return None
    layer.check("g_idx", (inputs,))
    of_input = np.asarray(layer.mapped("g_idx"), np.int64)
    if of_input.min() < 0 or of_input.max() >= groups:
        raise BadShard(f"{layer.name}.g_idx names group {of_input.max()} where there are {groups}.")
    return of_input
