"""A build is complete, named by its content, and made again only when something changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from export.build import build
from export.cli import app
from glmserve.contract import CONTRACT_VERSION
from glmserve.errors import BadArtifact
from glmserve.manifest import Manifest

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
QUIET = Console(quiet=True)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO, tmp_path / "checkpoint"))


def test_a_build_is_whole_and_nothing_else_is_left(checkpoint: Path, tmp_path: Path) -> None:
    path = build(checkpoint, tmp_path / "builds", QUIET)
    manifest = Manifest.read(path)
    manifest.check(path)
    assert path.name == manifest.digest
    assert [p.name for p in (tmp_path / "builds").glob("[!.]*")] == [manifest.digest]
    assert not list((tmp_path / "builds").glob(".parts-*"))
    assert {p.name for p in path.iterdir()} == {
        "manifest.json",
        "certificate.json",
        "certificate.html",
        "checkpoint",
        "canary",
        "model_repository",
    }
    assert {p.name for p in (path / "model_repository").iterdir()} == {"glm4v", "glm4v_whole"}


def test_two_builds_of_one_checkpoint_are_the_same(checkpoint: Path, tmp_path: Path) -> None:
    first, second = (build(checkpoint, tmp_path / name, QUIET) for name in "ab")
    assert first.name == second.name
    assert Manifest.read(first) == Manifest.read(second)


def test_an_existing_build_is_found_again(checkpoint: Path, tmp_path: Path) -> None:
    first = build(checkpoint, tmp_path / "builds", QUIET)
    written = (first / "manifest.json").stat().st_mtime_ns
    assert build(checkpoint, tmp_path / "builds", QUIET) == first
    assert (first / "manifest.json").stat().st_mtime_ns == written


def test_a_checkpoint_is_known_again_wherever_it_lies(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(checkpoint, tmp_path / "builds", QUIET)
    monkeypatch.chdir(checkpoint.parent)
    assert Manifest.read(build(Path("checkpoint"), tmp_path / "others", QUIET)) == Manifest.read(first)


def test_the_same_content_from_another_recipe_keeps_its_certificate(checkpoint: Path, tmp_path: Path) -> None:
    first = build(checkpoint, tmp_path / "builds", QUIET)
    written = (first / "certificate.json").read_text("utf-8")
    (checkpoint / "golden" / "note.txt").write_text("a file that is a part of the recipe and of no build")
    assert build(checkpoint, tmp_path / "builds", QUIET) == first
    assert (first / "certificate.json").read_text("utf-8") == written
    manifest = (first / "manifest.json").stat().st_mtime_ns
    assert build(checkpoint, tmp_path / "builds", QUIET) == first  # now found, not made again
    assert (first / "manifest.json").stat().st_mtime_ns == manifest
    assert not list((tmp_path / "builds").glob(".parts-*"))


def test_what_a_kill_left_half_written_is_no_part_of_a_build(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("content")
    for name in (".certificate.json", "certificate.html"):
        (tmp_path / name).write_text("not content")
    assert set(Manifest.describe(tmp_path, "recipe", "source", "fp32", "cpu").files) == {"kept"}


def test_another_weight_makes_another_build(checkpoint: Path, tmp_path: Path) -> None:
    first = build(checkpoint, tmp_path / "builds", QUIET)
    file = checkpoint / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    assert build(checkpoint, tmp_path / "builds", QUIET) != first


def test_a_flipped_bit_in_any_file_is_found_by_name(checkpoint: Path, tmp_path: Path) -> None:
    path = build(checkpoint, tmp_path / "builds", QUIET)
    manifest = Manifest.read(path)
    for name in manifest.files:
        file = path / name
        right = file.read_bytes()
        file.write_bytes(bytes([right[0] ^ 1]) + right[1:])
        with pytest.raises(BadArtifact, match=name.rsplit("/", 1)[-1]):
            manifest.check(path)
        file.write_bytes(right)
    manifest.check(path)


def test_a_damaged_build_is_made_again(checkpoint: Path, tmp_path: Path) -> None:
    path = build(checkpoint, tmp_path / "builds", QUIET)
    (path / "checkpoint" / "tokenizer.json").unlink()
    assert build(checkpoint, tmp_path / "builds", QUIET) == path
    Manifest.read(path).check(path)


def test_a_build_of_another_contract_is_refused_with_both_versions(checkpoint: Path, tmp_path: Path) -> None:
    path = build(checkpoint, tmp_path / "builds", QUIET)
    values = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(values | {"contract_version": 99}))
    with pytest.raises(BadArtifact, match=f"version 99.*version {CONTRACT_VERSION}"):
        Manifest.read(path)


def test_the_command_prints_the_build_last(checkpoint: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["build", "--checkpoint", str(checkpoint), "--out", str(tmp_path / "builds")])
    assert result.exit_code == 0, result.output
    assert Manifest.read(Path(result.stdout.splitlines()[-1]))
