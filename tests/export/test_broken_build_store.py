"""What is strange or broken in the folder of builds is told word for word, and with its remedy."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from shared_builds import copied
from typer.testing import CliRunner, Result

from export.cli import app
from export.errors import Exit
from export.store.publish import history, publish
from glmserve.build.manifest import CURRENT, Manifest


@pytest.fixture
def copy(demo_build: Path, tmp_path: Path) -> Path:
    return copied(demo_build, tmp_path / "builds")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def stand_in(out: Path, name: str) -> None:
    """A folder that looks like a build from afar."""
    (out / name).mkdir(parents=True)
    replace(Manifest.describe(out / name, "recipe", "stand-in", "fp32", "cpu"), digest=name).write(out / name)


@pytest.mark.parametrize("answer", ["A sign says [STOP] and [/img]", "[stop here] in [red] :red_circle:"])
def test_an_answer_is_told_word_for_word(answer: str, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.commands.publish.smoke_test", lambda *_: answer)
    result = run("publish", copy.name, "--out", copy.parent)
    assert result.exit_code == 0 and answer in result.stderr


def test_a_checkpoint_of_any_name_is_listed_under_it(tmp_path: Path) -> None:
    described = Manifest.describe(tmp_path, "recipe", "[/data] :cat: [b]x", "fp32", "cpu")
    (tmp_path / described.digest).mkdir()
    described.write(tmp_path / described.digest)
    result = run("list", "--out", tmp_path)
    assert result.exit_code == 0 and "[/data] :cat: [b]x" in result.stdout


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_current_that_is_no_link_is_named_and_stays(kind: str, copy: Path) -> None:
    out = copy.parent
    (out / CURRENT).mkdir() if kind == "folder" else (out / CURRENT).write_text("mine")
    for command in (("publish", copy.name), ("rollback",), ("list",), ("prune",)):
        result = run(*command, "--out", out)
        assert result.exit_code == Exit.BAD_ARTIFACT and "was not made by `publish`" in result.stderr
    assert not (out / CURRENT).is_symlink() and not (out / ".published").exists()


@pytest.mark.parametrize("lost", ["missing", "{", "{}", "[]"])
def test_a_lost_entry_of_the_history_is_named_with_the_remedy(lost: str, tmp_path: Path) -> None:
    for name in "ab":
        stand_in(tmp_path, name)
        publish(tmp_path, name)
    entry = tmp_path / ".published" / "000001" / "entry.json"
    entry.unlink() if lost == "missing" else entry.write_text(lost)
    for command in ("list", "prune", "rollback"):
        result = run(command, "--out", tmp_path)
        assert result.exit_code == Exit.BAD_ARTIFACT and str(entry) in result.stderr
    (tmp_path / CURRENT).unlink()
    shutil.rmtree(tmp_path / ".published")
    assert publish(tmp_path, "a").number == 1 and [one.digest for one in history(tmp_path)] == ["a"]
