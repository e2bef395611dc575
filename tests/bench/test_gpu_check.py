"""The GPU check runs here at tiny size, says that it is no GPU, and finds the build's tokens to be torch's."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.gpu.check import gpu_check
from bench.gpu.plan import Limit, Plan, rehearsal
from glmserve.build.manifest import CHECKPOINT_FOLDER, REPOSITORY_FOLDER
from glmserve.contract import DECODER_MODEL

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"


@pytest.mark.parity
def test_the_check_rehearses_on_a_processor_and_says_so_first(tmp_path: Path) -> None:
    said: list[str] = []
    verdict = gpu_check(None, tmp_path, said.append)
    assert said[0].startswith("NO GPU") and not verdict.has_gpu
    assert verdict.is_right, said
    kinds = [(row["rows"], row["kv"]) for row in verdict.rows]
    assert kinds == [(rows, kv) for kv in ("same", "int8") for rows in (1, 8, 32)]
    for row in verdict.rows:
        assert row["worst_loss"] < (0.5 if row["kv"] == "int8" else 1e-3) and row["logprob_error"]["worst"] < 1e-3
        assert min(row["prefill_tokens_per_s"], row["decode_tokens_per_s"], row["limit_tokens_per_s"]) > 0
        assert {"device", "card", "torch", "kv_in_place", "transformers_one_at_a_time", "share_of_limit"} <= row.keys()
    assert Plan.read(tmp_path / "plan.json").rows == (1, 8, 32)


def test_the_limit_counts_weights_once_a_step_and_kv_once_a_row(tmp_path: Path) -> None:
    folder = tmp_path / REPOSITORY_FOLDER / DECODER_MODEL / "1"
    folder.mkdir(parents=True)
    (tmp_path / CHECKPOINT_FOLDER).symlink_to(DEMO)
    (folder / "decoder.data").write_bytes(bytes(3_000_000))
    limit = Limit.of(rehearsal(DEMO, tmp_path, tmp_path), bandwidth=1e9)
    assert 0 < limit.weights_bytes < 3_000_000
    alone, together = limit.tokens_per_s(1, 0), limit.tokens_per_s(8, 0)
    assert together == pytest.approx(8 * alone) and alone == pytest.approx(1e9 / limit.weights_bytes)
    assert limit.tokens_per_s(8, 1000) < together


def test_an_unknown_folder_is_a_wrong_command_line(tmp_path: Path) -> None:
    from bench.cli import app

    assert CliRunner().invoke(app, ["gpu-check", "--model", str(tmp_path / "none")]).exit_code == 2
