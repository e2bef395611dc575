"""Opens a checkpoint's weights, whichever way they are published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from export.checkpoint.formats import awq, compressed_tensors, float8, gptq
from export.checkpoint.formats.gguf_header import gguf_files
from export.checkpoint.formats.gguf_weights import check_folder, gguf_weights
from export.checkpoint.formats.published import PublishedTensor, PublishedWeights
from export.checkpoint.formats.quantization_config import QuantizationConfig
from export.checkpoint.stored_tensors import StoredTensor
from export.checkpoint.weights import Weights

Reader = Callable[[QuantizationConfig, Mapping[str, StoredTensor], Path], dict[str, PublishedTensor]]
"""Finds the quantised weights among stored tensors of a folder."""
READERS: dict[str, tuple[str, Reader]] = {
    compressed_tensors.METHOD: ("compressed-tensors", compressed_tensors.tensors_of),
    gptq.METHOD: ("GPTQ", gptq.tensors_of),
    awq.METHOD: ("AWQ", awq.tensors_of),
    float8.METHOD: ("FP8", float8.tensors_of),
}
"""By `quant_method`: a name for readers, and who reads it."""
REFUSED = {
    "bitsandbytes": "Its nf4 and int8 are no evenly spaced codes in blocks. Export the unquantised checkpoint with "
    "--precision int4 or int8, which take as little room.",
    "mxfp4": "Export the unquantised checkpoint with --precision int4.",
}
"""Methods that are refused, and what to do instead."""
_OTHERWISE = "Export the unquantised checkpoint with --precision int4 or int8."


def check_small_files(folder: Path) -> None:
    """Raises BadShard for a folder of GGUF files that lacks what these do not hold, or that holds other weights too."""
    if gguf_files(folder):
        check_folder(folder)


def open_weights(folder: Path) -> Weights:
    """The weights of a checkpoint's folder. Raises BadArtifact for a method that is not read, with what to do, and
    BadShard for files that are missing, broken or do not fit together."""
    if gguf_files(folder):
        return gguf_weights(folder)
    weights, config = Weights.open(folder), QuantizationConfig.read(folder)
    if config is None:
        return weights
    if config.method not in READERS:
        known = ", ".join(READERS)
        raise config.refused(
            f"quant_method {config.method or 'none'} is not read, only {known}",
            REFUSED.get(config.method, _OTHERWISE),
        )
    name, read = READERS[config.method]
    notes = compressed_tensors.check(config) if config.method == compressed_tensors.METHOD else ()
    tensors = read(config, weights.stored(), folder)
    return PublishedWeights(folder, weights.shards, name, tensors, notes)
