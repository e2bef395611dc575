"""Every published format is read as what its own package reads, tensor by tensor, and laid out without loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published import (
    SHARD,
    Tensors,
    awq_layer,
    compressed_layer,
    gptq_layer,
    publish,
    rounded,
    words_of,
)
from random_checkpoints import DEMO, needs_torch
from safetensors.numpy import load_file

from export.checkpoint.formats.bit_packing import unpack_columns
from export.checkpoint.formats.opened import open_weights
from export.checkpoint.formats.published import PublishedWeights
from export.checkpoint.packed import Codes, PackedWeight, block_of
from export.checkpoint.stored_tensors import stored_tensors_in
from export.graph.layers import GraphWriter
from export.precision import Numbers

pytestmark = pytest.mark.slow
DOWN = "model.language_model.layers.1.mlp.down_proj"
WEIGHT = f"{DOWN}.weight"
SHAPE = (256, 512)
KEEPS = Numbers(kept_bits=(4, 8))


def opened(folder: Path) -> PublishedWeights:
    weights = open_weights(folder)
    assert isinstance(weights, PublishedWeights)
    return weights


def in_numbers() -> np.ndarray:
    array: np.ndarray = load_file(DEMO / SHARD)[WEIGHT].astype(np.float32)
    return array


def product(weights: PublishedWeights, x: np.ndarray) -> np.ndarray:
    """What a graph that keeps the codes multiplies x [rows, in] to."""
    g = GraphWriter(weights, KEEPS)
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["rows", x.shape[-1]]))
    made = g.projection(value, DOWN, SHAPE[::-1], "y")
    made.type = ir.TensorType(ir.DataType.FLOAT)
    content = ir.to_proto(g.model("layer", [value], [made])).SerializeToString()
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    array: np.ndarray = session.run(None, {"x": x})[0]
    return array


def check_product(weights: PublishedWeights) -> None:
    """The graph multiplies by the numbers that the codes stand for; activations are rounded to 8 bits."""
    x = np.random.default_rng(0).normal(size=(5, SHAPE[1])).astype(np.float32)
    wanted = x @ weights.read(WEIGHT, SHAPE).T
    found = product(weights, x)
    assert np.linalg.norm(found - wanted) < 0.02 * np.linalg.norm(wanted)


ORDER = np.random.default_rng(4).permutation(SHAPE[1])


@pytest.mark.parametrize("second", [False, True], ids=["v1", "v2"])
@pytest.mark.parametrize("group", [32, 64, 128, -1])
@pytest.mark.parametrize(("bits", "symmetric"), [(4, True), (4, False), (8, True), (8, False), (2, False)])
def test_gptq_is_read_as_it_was_rounded(second: bool, group: int, bits: int, symmetric: bool, tmp_path: Path) -> None:
    made = rounded(in_numbers(), bits, group, symmetric)
    config = {"quant_method": "gptq", "bits": bits, "checkpoint_format": "gptq_v2" if second else "gptq"}
    weights = opened(gptq(tmp_path, config, bits, group, symmetric, second))
    np.testing.assert_array_equal(weights.read(WEIGHT, SHAPE), made.values)
    np.testing.assert_array_equal(weights.read_rows(WEIGHT, 7, 40), made.values[7:40])
    np.testing.assert_array_equal(weights.read_columns(WEIGHT, 3, 130), made.values[:, 3:130])
    packed = weights.packed(WEIGHT, SHAPE)
    assert packed is not None and packed.order is None and packed.bits == max(bits, 4)
    check_product(weights)


def gptq(
    tmp_path: Path,
    config: dict[str, Any],
    bits: int,
    group: int,
    symmetric: bool,
    second: bool,
    order: np.ndarray | None = None,
) -> Path:
    def layer(name: str, array: np.ndarray) -> Tensors:
        same = order if order is not None and array.shape[1] == len(order) else None
        return gptq_layer(name, rounded(array, bits, group, symmetric, same), bits, second)

    return publish(DEMO, tmp_path / "gptq", config, layer)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_zero_points_that_borrowed_from_their_neighbours_are_put_right(bits: int, tmp_path: Path) -> None:
    """GPTQModel takes one from every zero point of a word at once, and a zero point may be 0."""
    made = rounded(in_numbers(), bits, 128, False)
    made.zeros[::3] = 0

    def layer(name: str, array: np.ndarray) -> Tensors:
        held = gptq_layer(name, made if name == DOWN else rounded(array, bits, 128, False), bits, second=True)
        one_in_each = np.uint32(sum(1 << place for place in range(0, 32, bits)))
        held[f"{name}.qzeros"] = (held[f"{name}.qzeros"].view(np.uint32) - one_in_each).view(np.int32)
        return held

    weights = opened(publish(DEMO, tmp_path / "gptq", {"quant_method": "gptq", "bits": bits}, layer))
    np.testing.assert_array_equal(weights.read(WEIGHT, SHAPE), made.values)


@pytest.mark.parametrize("group", [32, 128])
def test_act_order_is_put_back(group: int, tmp_path: Path) -> None:
    made = rounded(in_numbers(), 4, group, False, ORDER)
    config = {"quant_method": "gptq", "bits": 4, "desc_act": True}
    weights = opened(gptq(tmp_path, config, 4, group, False, False, ORDER))
    np.testing.assert_array_equal(weights.read(WEIGHT, SHAPE), made.values)
    packed = weights.packed(WEIGHT, SHAPE)
    assert packed is not None and packed.order is not None
    assert "act-order" in weights.tensors[WEIGHT].scheme
    check_product(weights)


def test_act_order_with_groups_of_unequal_size_is_read_as_numbers(tmp_path: Path) -> None:
    order = np.arange(SHAPE[1])

    def layer(name: str, array: np.ndarray) -> Tensors:
        made = rounded(array, 4, 64, False, order if array.shape[1] == len(order) else None)
        made.of_input[0] = array.shape[1] // 64 - 1
        return gptq_layer(name, made, 4)

    weights = opened(publish(DEMO, tmp_path / "gptq", {"quant_method": "gptq", "bits": 4}, layer))
    made = rounded(in_numbers(), 4, 64, False)
    made.of_input[0] = SHAPE[1] // 64 - 1
    np.testing.assert_array_equal(weights.read(WEIGHT, SHAPE), made.values)
    assert weights.packed(WEIGHT, SHAPE) is None and "unequal" in weights.tensors[WEIGHT].why
    check_product(weights)


@pytest.mark.parametrize("group", [32, 64, 128, -1])
def test_awq_is_read_as_it_was_rounded(group: int, tmp_path: Path) -> None:
    made = rounded(in_numbers(), 4, group, False)
    config = {"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm", "zero_point": True}
    weights = opened(
        publish(DEMO, tmp_path / "awq", config, lambda name, array: awq_layer(name, rounded(array, 4, group, False)))
    )
    np.testing.assert_array_equal(weights.read(WEIGHT, SHAPE), made.values)
    np.testing.assert_array_equal(weights.read_rows(WEIGHT, 13, 30), made.values[13:30])
    assert weights.packed(WEIGHT, SHAPE) is not None
    check_product(weights)


SCHEMES: dict[str, tuple[dict[str, Any], Any]] = {
    "W4A16, groups of 32": ({"num_bits": 4, "strategy": "group", "group_size": 32}, None),
    "W4A16, groups of 64, zero points": (
        {"num_bits": 4, "strategy": "group", "group_size": 64, "symmetric": False},
        None,
    ),
    "W4A16, groups of 128": ({"num_bits": 4, "strategy": "group", "group_size": 128}, None),
    "W4A16, outputs": ({"num_bits": 4, "strategy": "channel"}, None),
    "W8A16, groups of 128": ({"num_bits": 8, "strategy": "group", "group_size": 128}, None),
    "W8A16, outputs, zero points": ({"num_bits": 8, "strategy": "channel", "symmetric": False}, None),
    "W8A8": ({"num_bits": 8, "strategy": "channel"}, {"num_bits": 8, "strategy": "token", "dynamic": True}),
    "W8A8, one scale": ({"num_bits": 8, "strategy": "tensor"}, {"num_bits": 8, "strategy": "tensor"}),
    "FP8, one scale": ({"num_bits": 8, "type": "float", "strategy": "tensor"}, {"num_bits": 8, "type": "float"}),
    "FP8, outputs": (
        {"num_bits": 8, "type": "float", "strategy": "channel"},
        {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True},
    ),
    "FP8, tiles": (
        {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [32, 64]},
        {"num_bits": 8, "type": "float", "strategy": "group", "group_size": 64, "dynamic": True},
    ),
}


def decompressed(stored: Tensors, weights: dict[str, Any], activations: Any) -> np.ndarray:
    """A layer as compressed-tensors reads it."""
    import torch
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**weights), input_activations=activations)
    state = {}
    for name, array in stored.items():
        is_float8 = array.dtype.itemsize == 1 and array.dtype.kind not in "iu"
        tensor = torch.from_numpy(array.view(np.uint8) if is_float8 else array)
        state[name.rpartition(".")[2]] = tensor.view(torch.float8_e4m3fn) if is_float8 else tensor
    format_name = "pack-quantized" if "weight_packed" in state else "naive-quantized"
    found = BaseCompressor.get_value_from_registry(format_name).decompress(state, scheme)["weight"]
    array: np.ndarray = found.float().numpy()
    return array


@needs_torch
@pytest.mark.parametrize("name", SCHEMES)
def test_compressed_tensors_are_read_as_their_package_reads_them(name: str, tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    kind, activations = SCHEMES[name]
    config = {"quant_method": "compressed-tensors", "format": "mixed-precision"}
    folder = publish(
        DEMO, tmp_path / "made", config, lambda layer, array: compressed_layer(layer, array, kind, activations)
    )
    weights = opened(folder)
    stored = {
        name: np.array(tensor.mapped(folder))
        for name, tensor in stored_tensors_in(folder / SHARD).items()
        if name.startswith(DOWN)
    }
    found = weights.read(WEIGHT, SHAPE)
    np.testing.assert_allclose(found, decompressed(stored, kind, activations), rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(weights.read_rows(WEIGHT, 13, 30), found[13:30])
    assert (weights.packed(WEIGHT, SHAPE) is None) == name.startswith("FP8")
    check_product(weights)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_codes_survive_their_packing(data: st.DataObject) -> None:
    bits = data.draw(st.sampled_from([4, 8]))
    block = data.draw(st.sampled_from([16, 32, 64, 128]))
    out, inputs = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 300))
    random = np.random.default_rng(data.draw(st.integers(0, 1 << 20)))
    blocks = -(-inputs // block)
    codes = random.integers(0, 1 << bits, (out, inputs), dtype=np.uint8)
    scales = random.normal(size=(out, blocks)).astype(np.float32)
    zeros = random.integers(0, 1 << bits, (out, blocks), dtype=np.uint8)
    held = Codes(codes, scales, zeros)
    packed = PackedWeight(
        (out, inputs), bits, block, lambda a, b: Codes(codes[a:b], scales[a:b], zeros[a:b]), has_zeros=True
    )
    tensors = packed.tensors(ir.DataType.FLOAT, "w")
    assert tensors.zeros is not None and [tensor.nbytes for tensor in tensors.all] == [
        tensor.numpy().nbytes for tensor in tensors.all
    ]
    bytes_of, zero_bytes = tensors.codes.numpy(), tensors.zeros.numpy()
    back = bytes_of.reshape(out, -1) if bits == 8 else np.stack([bytes_of & 15, bytes_of >> 4], -1).reshape(out, -1)
    np.testing.assert_array_equal(back[:, :inputs], held.codes)
    back = zero_bytes if bits == 8 else np.stack([zero_bytes & 15, zero_bytes >> 4], -1).reshape(out, -1)
    np.testing.assert_array_equal(back[:, :blocks], zeros)
    of_input = np.arange(inputs) // block
    wanted = (codes.astype(np.float32) - zeros[:, of_input]) * scales[:, of_input]
    np.testing.assert_array_equal(packed.values(0, out), wanted)


@given(bits=st.sampled_from([2, 4, 8]), rows=st.integers(1, 5), words=st.integers(1, 6), seed=st.integers(0, 99))
def test_words_give_back_the_codes_that_were_put_in(bits: int, rows: int, words: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 1 << bits, (rows, words * 32 // bits), dtype=np.uint8)
    np.testing.assert_array_equal(unpack_columns(words_of(codes, bits), bits), codes)


def test_groups_of_any_even_size_are_made_of_blocks() -> None:
    assert [block_of(group) for group in (16, 32, 48, 96, 128, 256, 384)] == [16, 32, 16, 32, 128, 128, 128]
    assert [block_of(group) for group in (1, 8, 24, 100)] == [None] * 4
