"""A build is complete, named by its content, and made again only when something changed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from export.build.pipeline import build
from export.build.progress import Advance
from export.cli import app
from glmserve.build.manifest import Manifest
from glmserve.contract import CONTRACT_VERSION
from glmserve.errors import BadArtifact

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


def test_the_same_content_from_another_recipe_was_made_when_it_was_made_first(checkpoint: Path, tmp_path: Path) -> None:
    first = build(checkpoint, tmp_path / "builds", QUIET)
    made, recipe = (first / "manifest.json").stat().st_mtime_ns, Manifest.read(first).recipe
    (checkpoint / "golden" / "note.txt").write_text("a file that is a part of the recipe and of no build")
    assert build(checkpoint, tmp_path / "builds", QUIET) == first and Manifest.read(first).recipe != recipe
    assert (first / "manifest.json").stat().st_mtime_ns == made


CODE = """
import sys
from pathlib import Path
from rich.console import Console
import export.build.pipeline as module
if sys.argv[3:]:
    write_graph = module.write_graph
    def dying(model, path, *rest):
        if path.name == sys.argv[3]:
            raise SystemExit(9)
        return write_graph(model, path, *rest)
    module.write_graph = dying
print(module.build(Path(sys.argv[1]), Path(sys.argv[2]), Console(quiet=True)))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The exporter with all that it uses, to be changed."""
    folder = tmp_path / "project"
    for name in ("export", "glmserve", "model_repository"):
        shutil.copytree(DEMO.parents[1] / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def build_with(project: Path, checkpoint: Path, out: Path, dies_at: str | None = None) -> Path | None:
    """The build that a project's code makes, None if it dies before it writes the graph `dies_at`."""
    command = [sys.executable, "-c", CODE, str(checkpoint), str(out), *([dies_at] if dies_at else [])]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == (9 if dies_at else 0), done.stderr
    return None if dies_at else Path(done.stdout.splitlines()[-1])


OTHER_READING = """
import dataclasses
_read = Checkpoint.read
def _doubled(folder):
    found = _read(folder)
    mean = tuple(2 * value for value in found.images.mean)
    return dataclasses.replace(found, images=dataclasses.replace(found.images, mean=mean))
Checkpoint.read = staticmethod(_doubled)
"""


def read_mean_doubled(project: Path) -> None:
    """A change of how a checkpoint is read, which goes into the image encoder's weights."""
    with (project / "glmserve" / "model" / "config.py").open("a", encoding="utf-8") as module:
        module.write(OTHER_READING)


def test_code_that_reads_checkpoints_differently_makes_another_build(
    project: Path, checkpoint: Path, tmp_path: Path
) -> None:
    shutil.rmtree(checkpoint / "golden")
    first = build_with(project, checkpoint, tmp_path / "builds")
    read_mean_doubled(project)
    assert build_with(project, checkpoint, tmp_path / "builds") != first


def test_a_killed_build_goes_on_with_the_same_code_only(project: Path, checkpoint: Path, tmp_path: Path) -> None:
    shutil.rmtree(checkpoint / "golden")
    build_with(project, checkpoint, tmp_path / "builds", dies_at="decoder.onnx")
    read_mean_doubled(project)
    resumed = build_with(project, checkpoint, tmp_path / "builds")
    fresh = build_with(project, checkpoint, tmp_path / "others")
    assert resumed is not None and fresh is not None and resumed.name == fresh.name


def test_a_file_that_is_read_tells_more_than_once_how_far_it_has_come(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of many gigabytes would be a minute of silence."""
    told: dict[str, list[int]] = {}

    @contextmanager
    def listen(_console: Console, title: str, _total: int) -> Iterator[Advance]:
        yield told.setdefault(title, []).append

    monkeypatch.setattr(sys.modules["export.build.pipeline"], "byte_progress", listen)
    build(checkpoint, tmp_path / "builds", QUIET)
    size = (checkpoint / "model.safetensors").stat().st_size
    assert sum(told["reading"]) == size and len(told["reading"]) > 10


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
