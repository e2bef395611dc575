"""A published build is what is served; an older one rolls back and serves as before."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving import serving
from shared_builds import build_of_demo, copied
from typer.testing import CliRunner

from export.cli import app
from export.precision import Precision
from glmserve.build.manifest import CURRENT

pytestmark = pytest.mark.triton


def run(*arguments: object) -> None:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


def test_an_older_build_rolls_back_and_serves(tmp_path: Path) -> None:
    older, newer = (copied(build_of_demo(precision), tmp_path) for precision in (Precision.FP32, Precision.INT8))
    for folder in (older, newer):
        run("publish", folder.name, "--out", tmp_path)
    assert (tmp_path / CURRENT).resolve() == newer
    run("rollback", "--out", tmp_path)
    with serving((tmp_path / CURRENT).resolve()) as service:
        described = service.get("/v1/models")[1]["data"][0]
        assert described["build"] == older.name and described["verified"] is True
        assert service.get("/health/ready")[0] == 200  # it has answered its golden image


def test_prune_leaves_a_build_as_long_as_triton_serves_it(tmp_path: Path) -> None:
    older, newer = (copied(build_of_demo(precision), tmp_path) for precision in (Precision.FP32, Precision.INT8))
    for folder in (older, newer):
        run("publish", folder.name, "--out", tmp_path)
    with serving(older):
        run("prune", "--keep", 0, "--out", tmp_path)
        assert older.is_dir()
    run("prune", "--keep", 0, "--out", tmp_path)
    assert not older.exists() and newer.is_dir()
