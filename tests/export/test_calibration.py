"""Layers rounded to 4 bits by what they are given lose less than those that are rounded by themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from export.build import pipeline
from export.build.pipeline import build
from export.calibrate.budget import Harm, kept_in_8_bits
from export.calibrate.order import CalibrationOrder
from export.calibrate.prompts import CalibrationPrompt, CalibrationSet
from export.cli import app
from export.errors import Exit
from export.precision import Precision, Target
from export.quantize import compensated
from export.quantize.blockwise import find_scales, round_to_codes
from export.quantize.compensated import Rounded, add_moments, empty_moments, group_count, rounded, values_of
from glmserve.build.manifest import Manifest, decoder_in
from glmserve.errors import BadArtifact

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
QUIET = Console(quiet=True)
FLOAT = np.dtype(np.float32)


def _alike(tokens: int, inputs: int, seed: int) -> np.ndarray:
    """Inputs f32 that depend on one another, as those of a trained layer do."""
    random = np.random.default_rng(seed)
    causes = random.normal(size=(tokens, max(1, inputs // 4)))
    mixed = causes @ np.random.default_rng(1).normal(size=(causes.shape[1], inputs))
    return (mixed + 0.3 * random.normal(size=(tokens, inputs))).astype(np.float32)


def _plain(weight: np.ndarray) -> np.ndarray:
    scales = find_scales(weight, 4)
    return values_of(Rounded(scales, round_to_codes(weight, scales, 4), 0.0), weight.shape[1])


def _error(weight: np.ndarray, values: np.ndarray, x: np.ndarray) -> float:
    return float(np.square(x @ (values - weight).T).sum() / np.square(x @ weight.T).sum())


@pytest.mark.parametrize("inputs", [32, 200, 256])
def test_products_change_less_than_with_plain_rounding_on_tokens_never_seen(inputs: int) -> None:
    weight = np.random.default_rng(inputs).normal(size=(96, inputs)).astype(np.float32)
    moments = empty_moments(inputs)
    add_moments(moments, _alike(2000, inputs, seed=2))
    found, x = rounded(weight, moments, FLOAT), _alike(500, inputs, seed=3)
    assert _error(weight, values_of(found, inputs), x) < 0.6 * _error(weight, _plain(weight), x)


def test_a_wide_layer_has_moments_within_equal_groups_of_whole_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [group_count(inputs) for inputs in (4096, 13_696, 12_288, 200)] == [1, 4, 3, 1]
    monkeypatch.setattr(compensated, "WIDEST", 64)
    weight = np.random.default_rng(0).normal(size=(40, 256)).astype(np.float32)
    moments = empty_moments(256)
    assert moments.shape == (4, 64, 64)
    x = _alike(1000, 256, seed=4)
    add_moments(moments, x)
    assert _error(weight, values_of(rounded(weight, moments, FLOAT), 256), x) < _error(weight, _plain(weight), x)


def test_inputs_that_are_always_zero_or_never_seen_do_no_harm() -> None:
    weight = np.random.default_rng(0).normal(size=(16, 64)).astype(np.float32)
    x = _alike(100, 64, seed=5)
    x[:, 7] = 0
    seen = empty_moments(64)
    add_moments(seen, x)
    for moments in (seen, empty_moments(64)):
        values = values_of(rounded(weight, moments, FLOAT), 64)
        assert np.isfinite(values).all() and np.abs(values - weight).max() < 1


def test_scales_are_rounded_before_the_codes_that_they_are_for() -> None:
    import ml_dtypes

    weight = np.random.default_rng(0).normal(size=(16, 64)).astype(np.float32)
    scales = rounded(weight, empty_moments(64), np.dtype(ml_dtypes.bfloat16)).scales
    np.testing.assert_array_equal(scales, scales.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_bits_go_where_they_make_good_most_for_their_size() -> None:
    sizes = {"small": (0.1, 100), "large": (0.3, 1000), "little": (0.001, 100), "rest": (0.0, 2800)}
    harms = [Harm(error, size, (name,)) for name, (error, size) in sizes.items()]
    assert kept_in_8_bits(harms, 4) == frozenset()
    assert kept_in_8_bits(harms, 4.1) == {"small"}  # a hundred of four thousand numbers
    assert kept_in_8_bits(harms, 4.2) == {"small", "little"}, "what does not fit is passed over"
    assert kept_in_8_bits(harms, 5.1) == {"small", "large"}
    assert kept_in_8_bits(harms, 8) == sizes.keys()


def test_the_prompts_that_come_along_are_always_the_same() -> None:
    first, second = CalibrationSet.drawn().prompts, CalibrationSet.drawn().prompts
    assert [prompt.prompt for prompt in first] == [prompt.prompt for prompt in second]
    for one, other in zip(first, second, strict=True):
        assert (one.image is None) == (other.image is None)
        assert one.image is None or one.image.tobytes() == (other.image and other.image.tobytes())


def _folder(folder: Path, *lines: str) -> Path:
    (folder / "prompts.jsonl").write_text("\n".join(lines), "utf-8")
    Image.new("RGB", (40, 30), "red").save(folder / "red.png")
    (folder / "no.png").write_text("text")
    return folder


def test_an_operators_own_prompts_are_read(tmp_path: Path) -> None:
    lines = ('{"prompt": "Hi"}', "", '{"prompt": "颜色？", "image": "red.png", "answer": "红色", "thinking": true}')
    found = CalibrationSet.read(_folder(tmp_path, *lines))
    assert found.prompts[0] == CalibrationPrompt("Hi")
    assert found.prompts[1].image is not None and found.prompts[1].answer == "红色" and found.prompts[1].thinking
    Image.new("RGB", (40, 30), "blue").save(tmp_path / "red.png")
    assert CalibrationSet.read(tmp_path).digest != found.digest


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[]", "line 1: must be a JSON object"),
        ('{"text": "Hi"}', "line 1: must be a JSON object with a text in prompt"),
        ('{"prompt": " "}', "text in prompt"),
        ('{"prompt": "Hi", "picture": "red.png"}', "picture is not known"),
        ('{"prompt": "Hi", "image": 3}', "image must be a text"),
        ('{"prompt": "Hi", "thinking": "yes"}', "thinking must be a true or false"),
        ('{"prompt": "Hi", "image": "gone.png"}', "gone.png is no picture"),
        ('{"prompt": "Hi", "image": "no.png"}', "no.png is no picture"),
        ('{"prompt": "Hi", "image": "../red.png"}', "is no picture beside"),
        ("", "holds no prompt"),
    ],
)
def test_a_wrong_line_is_named(line: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match=said):
        CalibrationSet.read(_folder(tmp_path, line))


def test_a_folder_without_prompts_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match=r"holds no prompts\.jsonl"):
        CalibrationSet.read(tmp_path)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--precision", "int8", "--calibrate"], "add --precision int4"),
        (["--bits", "4.5"], "add --precision int4"),
        (["--precision", "int4", "--bits", "3"], "--bits is 3.0, and must be from 4 to 8"),
        (["--precision", "int4", "--target", "rtx", "--calibrate"], "no engines of TensorRT for RTX"),
    ],
)
def test_a_calibration_of_no_use_is_refused(asked: list[str], said: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["build", "--checkpoint", str(DEMO), "--out", str(tmp_path), *asked])
    assert done.exit_code == Exit.BAD_ARTIFACT and said in done.stderr


def _few(bits: float = 4) -> CalibrationOrder:
    few = CalibrationSet(CalibrationSet.drawn().prompts[:12], "few")
    return CalibrationOrder(few, bits)


def _product_bits(folder: Path) -> dict[str, int]:
    """The bits of each product of the decoder's layers, by the name of its node."""
    model = ir.load(decoder_in(folder))
    found = {}
    for node in model.graph:
        if node.op_type in ("MatMulNBits", "MatMulIntegerToFloat") and str(node.name).startswith("layers"):
            found[str(node.name)] = 4 if node.op_type == "MatMulNBits" else 8
    return found


@pytest.mark.build
def test_a_calibrated_build_says_so_and_a_killed_one_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build(DEMO, tmp_path / "whole", QUIET, Precision.INT4, calibration=_few())
    manifest = Manifest.read(whole)
    assert manifest.rounding.startswith("calibrated, 4 bits, 12 prompts")
    assert json.loads((whole / "certificate.json").read_text("utf-8"))["passed"]

    class Killed(Exception):
        pass

    run, layers = pipeline.DecoderRounding._round_layer, []

    def two_layers(*arguments: object) -> object:
        layers.append(arguments[1])
        if len(layers) == 3:
            raise Killed
        return run(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline.DecoderRounding, "_round_layer", two_layers)
    with pytest.raises(Killed):
        build(DEMO, tmp_path / "killed", QUIET, Precision.INT4, calibration=_few())
    again = build(DEMO, tmp_path / "killed", QUIET, Precision.INT4, calibration=_few())
    assert layers == [0, 1, 2, 2, 3]
    assert Manifest.read(again).files == manifest.files and not list((tmp_path / "killed").glob(".parts-*"))


@pytest.mark.build
def test_a_budget_of_bits_is_kept_and_spent(tmp_path: Path) -> None:
    folder = build(DEMO, tmp_path, QUIET, Precision.INT4, calibration=_few(4.5))
    bits = _product_bits(folder)
    assert {4, 8} == set(bits.values())
    plain = build(DEMO, tmp_path, QUIET, Precision.INT4)
    assert set(_product_bits(plain).values()) == {4} and len(_product_bits(plain)) == len(bits)
    assert json.loads((folder / "certificate.json").read_text("utf-8"))["passed"]


@pytest.mark.build
def test_a_calibrated_build_for_cuda_keeps_scales_in_bf16(tmp_path: Path) -> None:
    folder = build(DEMO, tmp_path, QUIET, Precision.INT4, Target.CUDA, calibration=_few())
    scales = ir.load(decoder_in(folder)).graph.initializers["model.language_model.layers.0.mlp.down_proj.weight.scales"]
    assert scales.dtype == ir.DataType.BFLOAT16
