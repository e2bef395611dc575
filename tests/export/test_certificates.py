"""A build is vouched for by a certificate that is its own, passed and still valid; nothing else is loaded."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file, save_file
from shared_builds import build_of_demo, copied
from typer.testing import CliRunner

from export.build.pipeline import build
from export.cli import app
from export.errors import Exit
from export.precision import Precision, Target
from glmserve.build.certificate import Certificate
from glmserve.build.manifest import CERTIFICATE_FILE, CERTIFICATE_PAGE, Manifest, decoder_in
from glmserve.contract import CONTRACT_VERSION
from glmserve.engine.server import open_checkpoint
from glmserve.engine.settings import EngineSettings
from glmserve.errors import BadArtifact, NotCertified
from glmserve.model.config import Checkpoint

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
QUIET = Console(quiet=True)
STRICT, LAX = EngineSettings(require_certificate=True), EngineSettings(require_certificate=False)


@pytest.fixture
def demo(demo_build: Path) -> Path:
    return demo_build


@pytest.fixture
def copy(demo: Path, tmp_path: Path) -> Path:
    """A build of one's own to spoil."""
    return copied(demo, tmp_path)


def certificate(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / CERTIFICATE_FILE).read_text("utf-8")))


def load(folder: Path, settings: EngineSettings = STRICT) -> None:
    open_checkpoint(decoder_in(folder).parent, settings)


def test_the_demo_is_certified_by_its_golden_logits_while_it_is_exported(demo: Path) -> None:
    found = certificate(demo)
    assert found["passed"] and found["digest"] == demo.name and found["against"] == "golden logits"
    names = [stage["name"] for stage in found["stages"]]
    for case in ("text_only", "two_pictures", "thinking", "chinese"):
        assert {f"{case}: {part}" for part in ("tokens", "image grids", "logits")} <= set(names)
    assert sum("unchanged" in name or "share changed" in name for name in names) == 2
    load(demo)


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8, Precision.INT4])
def test_rounded_builds_are_certified_within_their_own_tolerances(precision: Precision) -> None:
    found = certificate(build_of_demo(precision))
    assert found["passed"] and any(stage["worst"] > 0 for stage in found["stages"])


def test_a_build_for_cuda_waits_for_a_machine_that_runs_it() -> None:
    folder = build_of_demo(Precision.BF16, Target.CUDA)
    assert not (folder / CERTIFICATE_FILE).exists()
    with pytest.raises(NotCertified, match="has no certificate"):
        load(folder)


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.INT8])
def test_a_build_in_bf16_says_why_it_cannot_be_tried_on_the_cpu(precision: Precision, tmp_path: Path) -> None:
    folder = copied(build_of_demo(precision, Target.CUDA), tmp_path)
    result = CliRunner().invoke(app, ["verify", str(folder), "--checkpoint", str(DEMO), "--device", "cpu"])
    assert result.exit_code == Exit.BAD_ARTIFACT and "no bf16 attention for the CPU" in result.stderr
    assert "in transformers" not in result.stdout


def test_a_missing_gpu_is_found_before_the_checkpoint_is_loaded(tmp_path: Path) -> None:
    folder = copied(build_of_demo(Precision.FP16, Target.CUDA), tmp_path)
    result = CliRunner().invoke(app, ["verify", str(folder), "--checkpoint", str(DEMO), "--device", "cuda"])
    assert result.exit_code == Exit.BAD_ARTIFACT and "no CUDA provider" in result.stderr
    assert "in transformers" not in result.stdout


def test_a_build_that_computes_something_else_is_not_passed_and_not_loaded(tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(DEMO, tmp_path / "checkpoint"))
    logits = load_file(checkpoint / "golden" / "logits.safetensors")
    logits["chinese"] = (logits["chinese"] + np.float32(0.01)).astype(np.float32)
    save_file(logits, checkpoint / "golden" / "logits.safetensors")
    command = ["build", "--checkpoint", str(checkpoint), "--out", str(tmp_path / "builds")]
    for _ in range(2):  # a build that is found again is no better
        result = CliRunner().invoke(app, command)
        assert result.exit_code == Exit.PARITY_FAILED and "does not compute" in result.stderr
    with pytest.raises(NotCertified, match="does not compute"):
        load(Path(result.stdout.splitlines()[-1]))


def test_a_lost_certificate_is_made_again(tmp_path: Path) -> None:
    folder = copied(build_of_demo(), tmp_path)
    (folder / CERTIFICATE_FILE).unlink()
    assert build(DEMO, tmp_path, QUIET) == folder and certificate(folder)["passed"]


def _checkpoint(tmp_path: Path) -> Path:
    """The demo's, of which nothing is recorded but the golden image."""
    checkpoint = Path(shutil.copytree(DEMO, tmp_path / "checkpoint"))
    for name in ("cases.json", "logits.safetensors"):
        (checkpoint / "golden" / name).unlink()
    return checkpoint


def _record(checkpoint: Path, shift: float = 0.0) -> None:
    """Puts the demo's golden cases beside a checkpoint, their logits off by so much."""
    logits = load_file(DEMO / "golden" / "logits.safetensors")
    moved = {name: (values + np.float32(shift)).astype(np.float32) for name, values in logits.items()}
    save_file(moved, checkpoint / "golden" / "logits.safetensors")
    shutil.copy(DEMO / "golden" / "cases.json", checkpoint / "golden")


def test_logits_recorded_after_the_build_certify_it(tmp_path: Path) -> None:
    checkpoint = _checkpoint(tmp_path)
    folder = build(checkpoint, tmp_path / "builds", QUIET)
    assert not (folder / CERTIFICATE_FILE).exists()
    _record(checkpoint)
    assert build(checkpoint, tmp_path / "builds", QUIET) == folder
    assert certificate(folder)["passed"] and (folder / CERTIFICATE_PAGE).is_file()


def test_logits_recorded_later_that_disprove_a_build_end_its_certificate(tmp_path: Path) -> None:
    checkpoint = _checkpoint(tmp_path)
    _record(checkpoint)
    folder = build(checkpoint, tmp_path / "builds", QUIET)
    assert certificate(folder)["passed"]
    _record(checkpoint, shift=1.0)
    command = ["build", "--checkpoint", str(checkpoint), "--out", str(tmp_path / "builds")]
    for _ in range(2):
        assert CliRunner().invoke(app, command).exit_code == Exit.PARITY_FAILED
        assert not certificate(folder)["passed"]


def test_a_golden_case_too_long_for_the_checkpoint_is_named_before_anything_is_written(tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(DEMO, tmp_path / "checkpoint"))
    cases = json.loads((checkpoint / "golden" / "cases.json").read_text("utf-8"))
    longest = Checkpoint.read(checkpoint).text.max_positions
    cases[1]["input_ids"] = cases[1]["input_ids"][:1] * longest
    (checkpoint / "golden" / "cases.json").write_text(json.dumps(cases), "utf-8")
    with pytest.raises(BadArtifact, match=rf"golden case {cases[1]['name']} has .* takes {longest}"):
        build(checkpoint, tmp_path / "builds", QUIET)
    assert not (tmp_path / "builds").exists()


def test_a_golden_case_longer_than_a_thousand_tokens_is_compared(tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(DEMO, tmp_path / "checkpoint"))
    cases = json.loads((checkpoint / "golden" / "cases.json").read_text("utf-8"))
    cases[0]["input_ids"] *= 100
    (checkpoint / "golden" / "cases.json").write_text(json.dumps(cases), "utf-8")
    found = certificate(build(checkpoint, tmp_path / "builds", QUIET))
    failed = {stage["name"].split(":")[0] for stage in found["stages"] if not stage["passed"]}
    assert cases[0]["name"] in failed  # its logits were recorded for another prompt
    assert not failed & {case["name"] for case in cases[1:]}


SPOILT: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("cannot be read", lambda _: "{"),
    ("cannot be read", lambda values: {key: value for key, value in values.items() if key != "passed"}),
    ("cannot be read", lambda values: values | {"made": "yesterday"}),
    ("made for another build, 0123456789abcdef", lambda values: values | {"digest": "0123456789abcdef"}),
    ("version 99.*version " + str(CONTRACT_VERSION), lambda values: values | {"contract_version": 99}),
    ("does not compute what its checkpoint does", lambda values: values | {"passed": False}),
    ("does not compute what its checkpoint does", lambda values: values | {"passed": "yes"}),
    ("expired on 2020-01-02", lambda values: values | {"expires": "2020-01-02T00:00:00+00:00"}),
]


@pytest.mark.parametrize(("words", "spoil"), SPOILT, ids=range(len(SPOILT)))
def test_a_spoilt_certificate_is_refused_by_name(copy: Path, words: str, spoil: Callable[[dict], Any]) -> None:
    spoilt = spoil(certificate(copy))
    (copy / CERTIFICATE_FILE).write_text(spoilt if isinstance(spoilt, str) else json.dumps(spoilt), "utf-8")
    with pytest.raises(NotCertified, match=f"{CERTIFICATE_FILE} of build {copy.name}.*{words}"):
        load(copy)
    assert not Certificate.vouches(copy, Manifest.read(copy))


def test_a_certificate_is_valid_until_it_expires(copy: Path) -> None:
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    (copy / CERTIFICATE_FILE).write_text(json.dumps(certificate(copy) | {"expires": tomorrow}))
    load(copy)


def test_a_build_without_a_certificate_is_served_only_when_told_so(
    copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (copy / CERTIFICATE_FILE).unlink()
    with pytest.raises(NotCertified, match=r"no certificate.*GLM_ENGINE_REQUIRE_CERTIFICATE=false"):
        load(copy)
    load(copy, LAX)
    assert "NOBODY VOUCHES" in caplog.text


def test_a_flipped_bit_is_refused_by_name(copy: Path) -> None:
    for name in Manifest.read(copy).files:
        file = copy / name
        right = file.read_bytes()
        file.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
        with pytest.raises(BadArtifact, match=f"{re.escape(name)} of build .* was altered"):
            load(copy)
        file.write_bytes(right)


def test_a_build_of_another_contract_is_refused_with_both_versions(copy: Path) -> None:
    values = json.loads((copy / "manifest.json").read_text("utf-8"))
    (copy / "manifest.json").write_text(json.dumps(values | {"contract_version": 99}))
    with pytest.raises(BadArtifact, match=f"version 99.*version {CONTRACT_VERSION}"):
        load(copy)
