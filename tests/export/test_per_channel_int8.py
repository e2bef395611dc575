"""A layer in bytes on both sides: close to the layer in fp32, row by row and group by group, on any processor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from safetensors.numpy import save_file

from export.checkpoint.weights import Weights
from export.graph.builder import declare, graph_input
from export.graph.layers import GraphWriter
from export.precision import Numbers
from export.quantize.per_channel_int8 import WIDEST, byte_codes, group_size, output_scales
from glmserve.engine.runtime.device import multiply_bytes_exactly

INPUTS, OUTPUTS = 2 * WIDEST, 48
OWN, OVERFLOWING = Path("/proc/cpuinfo").read_text("utf-8"), "flags : fpu avx2 avx512f\n"
rng = np.random.default_rng(0)
WEIGHT = rng.standard_normal((OUTPUTS, INPUTS)).astype(np.float32)
ROWS = rng.standard_normal((5, INPUTS)).astype(np.float32)


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """One linear layer, wide enough for two groups of inputs."""
    folder = tmp_path_factory.mktemp("layer")
    save_file({"layer.weight": WEIGHT}, folder / "model.safetensors")
    g = GraphWriter(Weights.open(folder), Numbers(bits=8))
    x = graph_input("x", ir.DataType.FLOAT, ["rows", INPUTS])
    y = declare(g.projection(x, "layer", (INPUTS, OUTPUTS), "y"), "y", ir.DataType.FLOAT, ["rows", OUTPUTS])
    content: bytes = ir.to_proto(g.model("layer", [x], [y])).SerializeToString()
    return content


def run(layer: bytes, rows: np.ndarray, tmp_path: Path, cpuinfo: str = OWN) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    path = tmp_path / "cpuinfo"
    path.write_text(cpuinfo, "utf-8")
    multiply_bytes_exactly(options, path)
    session = ort.InferenceSession(layer, options, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(["y"], {"x": rows})[0]
    return found


def error(found: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of each row, relative to its length."""
    wanted = rows @ WEIGHT.T
    off: np.ndarray = np.linalg.norm(found - wanted, axis=-1) / np.linalg.norm(wanted, axis=-1)
    return off


def test_it_is_close_to_fp32(layer: bytes, tmp_path: Path) -> None:
    assert error(run(layer, ROWS, tmp_path), ROWS).max() < 0.015


def test_rows_do_not_change_one_another(layer: bytes, tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[1] *= 1e6
    rows[2] = 0
    together = run(layer, rows, tmp_path)
    alone = np.concatenate([run(layer, row[None], tmp_path) for row in rows])
    np.testing.assert_array_equal(together, alone)
    assert not together[2].any()


def test_a_nan_stays_in_its_row(layer: bytes, tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[3] = np.nan
    found = run(layer, rows, tmp_path)
    assert np.isnan(found[3]).all() and np.isfinite(np.delete(found, 3, 0)).all()


def test_a_large_value_costs_only_its_own_group(layer: bytes, tmp_path: Path) -> None:
    rows = np.zeros_like(ROWS[:1])
    rows[0, WIDEST:] = ROWS[0, WIDEST:]
    quiet = run(layer, rows, tmp_path)
    rows[0, 0] = 1000.0
    loud = run(layer, rows, tmp_path)
    first = run(layer, rows * (np.arange(INPUTS) < WIDEST), tmp_path)
    np.testing.assert_allclose(loud - first, quiet, atol=1e-3)


def test_a_processor_that_would_overflow_finds_the_same(layer: bytes, tmp_path: Path) -> None:
    full = np.full((2, INPUTS), 1.0, np.float32)  # every code is the largest: the worst there can be
    for rows in (ROWS, full, -full):
        np.testing.assert_array_equal(run(layer, rows, tmp_path, OVERFLOWING), run(layer, rows, tmp_path))


@pytest.mark.parametrize(
    ("flags", "is_told"),
    [("avx2", True), ("avx2 avx512f", True), ("avx2 avx_vnni", False), ("avx512f avx512_vnni amx_int8", False)],
)
def test_only_an_x86_without_vnni_is_told_to_take_the_sign_off(tmp_path: Path, flags: str, is_told: bool) -> None:
    options, path = ort.SessionOptions(), tmp_path / "cpuinfo"
    path.write_text(f"processor : 0\nflags\t\t: fpu {flags}\n", "utf-8")
    multiply_bytes_exactly(options, path)
    try:
        told = options.get_session_config_entry("session.x64quantprecision") == "1"
    except RuntimeError:  # it was never set
        told = False
    assert told == is_told


@pytest.mark.parametrize(
    ("inputs", "size"), [(192, 192), (1024, 1024), (4096, 1024), (13696, 856), (3424, 856), (1031, 1031)]
)
def test_groups_are_equal_and_at_most_so_wide(inputs: int, size: int) -> None:
    assert group_size(inputs) == size


def test_codes_are_turned_and_within_half_a_step() -> None:
    weight = WEIGHT.copy()
    weight[7] = 0
    scales = output_scales(weight)
    codes = byte_codes(weight, scales)
    assert codes.shape == (INPUTS, OUTPUTS) and codes.dtype == np.int8
    assert np.abs(codes.T * scales[:, None] - weight).max() <= 0.501 * scales.max()
    assert (np.abs(codes).max(0)[np.arange(OUTPUTS) != 7] == 127).all() and not codes[:, 7].any()
