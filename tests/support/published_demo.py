"""The demo checkpoint in each format that checkpoints are published in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf_checkpoints import publish_gguf
from published import awq_layer, compressed_layer, gptq_layer, publish, rounded
from random_checkpoints import DEMO

_ORDER = np.random.default_rng(4).permutation(512)
_PER_TOKEN = {"num_bits": 8, "strategy": "token", "dynamic": True}


def w4a16(folder: Path) -> Path:
    kind = {"num_bits": 4, "strategy": "group", "group_size": 64, "symmetric": False}
    config = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
    return publish(DEMO, folder, config, lambda name, array: compressed_layer(name, array, kind))


def w8a8(folder: Path) -> Path:
    kind = {"num_bits": 8, "strategy": "channel"}
    config = {"quant_method": "compressed-tensors", "format": "int-quantized"}
    return publish(DEMO, folder, config, lambda name, array: compressed_layer(name, array, kind, _PER_TOKEN))


def float8(folder: Path) -> Path:
    kind = {"num_bits": 8, "type": "float", "strategy": "channel"}
    config = {"quant_method": "compressed-tensors", "format": "float-quantized"}
    return publish(DEMO, folder, config, lambda name, array: compressed_layer(name, array, kind, _PER_TOKEN))


def gptq(folder: Path) -> Path:
    config = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}
    return publish(DEMO, folder, config, lambda name, array: gptq_layer(name, rounded(array, 4, 128), 4))


def gptq_act_order(folder: Path) -> Path:
    config = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": True}

    def layer(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
        order = _ORDER if array.shape[1] == len(_ORDER) else None
        return gptq_layer(name, rounded(array, 4, 32, False, order), 4)

    return publish(DEMO, folder, config, layer)


def awq(folder: Path) -> Path:
    config = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}
    return publish(DEMO, folder, config, lambda name, array: awq_layer(name, rounded(array, 4, 128, False)))


def gguf_q4(folder: Path) -> Path:
    return publish_gguf(DEMO, folder, "Q4_K", "Q6_K")


def gguf_q8(folder: Path) -> Path:
    return publish_gguf(DEMO, folder, "Q8_0")


MAKERS = {
    "w4a16": w4a16,
    "w8a8": w8a8,
    "fp8": float8,
    "gptq": gptq,
    "gptq-act-order": gptq_act_order,
    "awq": awq,
    "gguf-q4_k": gguf_q4,
    "gguf-q8_0": gguf_q8,
}
NEEDS = {"w4a16": "compressed_tensors", "w8a8": "compressed_tensors", "fp8": "compressed_tensors"}
NEEDS |= {"gguf-q4_k": "gguf", "gguf-q8_0": "gguf"}
"""The package that makes a format."""


def published_demo(name: str, folder: Path) -> Path:
    """The demo in a format, in a new folder; skips the test where the format's package is not installed."""
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    return MAKERS[name](folder)
