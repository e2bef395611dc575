"""Publishing switches in one step, keeps what was before, and goes back to it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from shared_builds import build_of_demo, copied
from typer.testing import CliRunner, Result

from export.build.pipeline import build
from export.cli import app
from export.errors import Exit, NothingBefore
from export.precision import Precision
from export.store.build_store import locked
from export.store.prune import prune, to_prune
from export.store.publish import Action, current, earlier, history, publish, rollback
from export.verify.smoke_test import smoke_test
from glmserve.build.lock import hold
from glmserve.build.manifest import CERTIFICATE_FILE, CURRENT, MANIFEST_FILE, Manifest, decoder_in
from glmserve.engine.server import EngineServer
from glmserve.errors import BadArtifact

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
QUIET = Console(quiet=True)
CANARY_ANSWER = json.loads((DEMO / "golden" / "canary.json").read_text("utf-8"))["answer"].split(",")[0]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo's fp32 and int8 builds."""
    out = tmp_path_factory.mktemp("two")
    for precision in (Precision.FP32, Precision.INT8):
        copied(build_of_demo(precision), out)
    return out


@pytest.fixture
def out(two: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(two, tmp_path / "builds", symlinks=True))


def digests(out: Path) -> tuple[str, str]:
    found = {Manifest.read(path.parent).precision: path.parent.name for path in out.glob("[!.]*/manifest.json")}
    return found["fp32"], found["int8"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def stand_ins(out: Path, *names: str) -> Path:
    """Folders that look like builds from afar, made one after the other."""
    for name in names:
        (out / name).mkdir(parents=True)
        described = Manifest.describe(out / name, "recipe", "stand-in", "fp32", "cpu")
        replace(described, digest=name).write(out / name)
    return out


def test_a_build_is_published_rolled_back_and_each_answers_first(out: Path) -> None:
    first, second = digests(out)
    for name in (first, second):
        result = run("publish", name, "--out", out)
        assert result.exit_code == 0, result.output
        assert CANARY_ANSWER in result.stderr.replace("\n", " ")
        assert (out / CURRENT).resolve() == (out / name).resolve()
    assert run("rollback", "--out", out).exit_code == 0
    assert Manifest.read(out / CURRENT).digest == first
    listed = json.loads(run("list", "--out", out, "--json").stdout)
    assert listed["current"] == first and [entry["action"] for entry in listed["history"]] == [
        "rollback",
        "publish",
        "publish",
    ]
    table = run("list", "--out", out).stdout
    assert f"* {first}" in table and second in table and "golden logits" in table
    assert run("rollback", "--out", out).exit_code == Exit.NOTHING_BEFORE


def test_a_golden_image_of_the_size_of_a_photo_is_answered(tmp_path: Path) -> None:
    """It comes to 1,849 tokens, with the image limits of the real model."""
    checkpoint = Path(shutil.copytree(DEMO, tmp_path / "checkpoint"))
    rules = json.loads((checkpoint / "preprocessor_config.json").read_text("utf-8"))
    rules["size"]["longest_edge"] = 9_633_792
    (checkpoint / "preprocessor_config.json").write_text(json.dumps(rules), "utf-8")
    Image.new("RGB", (1200, 1200), "red").save(checkpoint / "golden" / "canary.png")
    question = {"prompt": "What is it?", "answer": None}
    (checkpoint / "golden" / "canary.json").write_text(json.dumps(question), "utf-8")
    (checkpoint / "golden" / "cases.json").unlink()
    assert smoke_test(build(checkpoint, tmp_path / "builds", QUIET), "cpu")


def test_a_golden_image_that_leaves_no_room_for_an_answer_is_named(out: Path) -> None:
    folder = out / digests(out)[0]
    config = json.loads((folder / "checkpoint" / "config.json").read_text("utf-8"))
    config["text_config"]["max_position_embeddings"] = 64
    (folder / "checkpoint" / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(BadArtifact, match=rf"canary of build {folder.name} has \d+ tokens, .* takes 64"):
        smoke_test(folder, "cpu")


def test_a_candidate_that_answers_wrongly_is_not_published(out: Path) -> None:
    first, second = digests(out)
    assert run("publish", first, "--out", out).exit_code == 0
    canary = out / second / "canary" / "canary.json"
    canary.write_text(json.dumps(json.loads(canary.read_text()) | {"answer": "Nothing at all."}))
    refuse_altered = run("publish", second, "--out", out)
    assert refuse_altered.exit_code == Exit.BAD_ARTIFACT and "canary.json" in refuse_altered.stderr
    described = Manifest.describe(out / second, "recipe", "demo", "int8", "cpu")
    described.write(out / second)
    values = json.loads((out / second / CERTIFICATE_FILE).read_text())
    (out / second / CERTIFICATE_FILE).write_text(json.dumps(values | {"digest": described.digest}))
    result = run("publish", second, "--out", out)
    assert result.exit_code == Exit.NOT_ANSWERED and "Nothing at all." in result.stderr
    assert Manifest.read(out / CURRENT).digest == first and len(history(out)) == 1


def test_a_build_without_a_certificate_is_not_published(out: Path) -> None:
    name = digests(out)[0]
    (out / name / CERTIFICATE_FILE).unlink()
    result = run("publish", name, "--out", out)
    assert result.exit_code == Exit.NOT_CERTIFIED and "no certificate" in result.stderr
    assert current(out) is None and not (out / CURRENT).exists()


def test_a_path_serves_as_well_as_a_digest_and_what_lies_elsewhere_does_not(out: Path, tmp_path: Path) -> None:
    name = digests(out)[0]
    assert run("publish", out / name, "--out", out).exit_code == 0
    stand_ins(tmp_path / "others", "0" * 16)
    for other in ("nowhere", tmp_path / "others" / ("0" * 16), "."):
        result = run("publish", other, "--out", out)
        assert result.exit_code == Exit.BAD_ARTIFACT and "There is no build" in result.stderr


@pytest.mark.parametrize("is_relative", [False, True])
def test_a_build_is_published_by_its_folder_from_anywhere(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_relative: bool
) -> None:
    """In the folder that it lies in, whatever `builds` there may be where we stand."""
    elsewhere = stand_ins(tmp_path / "elsewhere" / "builds", "other").parent
    monkeypatch.chdir(elsewhere)
    folder = out / digests(out)[0]
    result = run("publish", Path("..", folder.relative_to(tmp_path)) if is_relative else folder)
    assert result.exit_code == 0, result.output
    assert (out / CURRENT).resolve() == folder.resolve() and not (elsewhere / "builds" / CURRENT).exists()


def test_two_commands_at_once_are_refused(out: Path) -> None:
    with locked(out, ".publish.lock", timeout_s=1):
        for command in (("publish", digests(out)[0]), ("rollback",), ("prune",)):
            assert run(*command, "--out", out).exit_code == Exit.LOCKED


def test_rolling_back_again_and_again_goes_further_back(tmp_path: Path) -> None:
    out = stand_ins(tmp_path, "a", "b", "c", "d")
    for name in "abc":
        publish(out, name)
    assert [rollback(out).digest for _ in range(2)] == ["b", "a"]
    with pytest.raises(NothingBefore):
        rollback(out)
    publish(out, "d")
    assert rollback(out).digest == "a"  # where it was before, not what was published before
    assert [entry.digest for entry in history(out)] == ["a", "d", "a", "b", "c", "b", "a"]
    assert [entry.action for entry in history(out)][:2] == [Action.ROLLBACK, Action.PUBLISH]


def test_what_a_kill_left_behind_is_cleared_away(tmp_path: Path) -> None:
    out = stand_ins(tmp_path, "a", "b")
    publish(out, "a")
    (out / ".published" / ".new-0123").mkdir()
    (out / ".published" / ".link").symlink_to("nowhere")
    assert publish(out, "b").number == 2
    assert sorted(path.name for path in (out / ".published").iterdir()) == ["000001", "000002"]


def test_publishing_the_current_build_changes_nothing(tmp_path: Path) -> None:
    out = stand_ins(tmp_path, "a")
    assert publish(out, "a") == publish(out, "a") and len(history(out)) == 1


def test_rollback_skips_a_build_that_is_gone(tmp_path: Path) -> None:
    out = stand_ins(tmp_path, "a", "b", "c")
    for name in "abc":
        publish(out, name)
    shutil.rmtree(out / "b")
    assert [entry.digest for entry in earlier(out)] == ["a"] and rollback(out).digest == "a"


def test_a_current_of_somebody_elses_making_is_named(tmp_path: Path) -> None:
    out = stand_ins(tmp_path, "a")
    (out / CURRENT).symlink_to("a")
    with pytest.raises(BadArtifact, match="was not made by `publish`"):
        current(out)


def test_prune_keeps_what_is_served_what_may_come_back_and_what_is_new(tmp_path: Path) -> None:
    out = stand_ins(tmp_path, "a", "b", "never", "c", "d", "candidate")
    assert to_prune(out, keep=0) == []  # nothing was published yet
    for name in "abcd":
        publish(out, name)
    assert [path.name for path in to_prune(out, keep=2)] == ["a", "never"]
    assert [path.name for path in to_prune(out, keep=0)] == ["a", "b", "never", "c"]
    (out / ".parts-0123").mkdir()
    (out / ".removing-x").mkdir()
    prune(out, to_prune(out, keep=1))
    assert sorted(path.name for path in out.glob("[!.]*")) == ["c", "candidate", CURRENT, "d"]
    assert not list(out.glob(".parts-*")) and not list(out.glob(".removing-*"))
    assert rollback(out).digest == "c"


def test_prune_takes_the_engines_of_builds_that_are_no_more(tmp_path: Path) -> None:
    out = stand_ins(tmp_path, "a", "b")
    for name in "ab":
        publish(out, name)
    for name in ("a", "b", "of-a-build-long-gone"):
        (out / "engines" / name / "sm90-trt10.15.1").mkdir(parents=True)
    (out / "engines" / "sm90-trt10.15.1.timing").write_bytes(b"kept")
    prune(out, to_prune(out, keep=0))
    assert sorted(path.name for path in (out / "engines").iterdir()) == ["b", "sm90-trt10.15.1.timing"]
    assert not list(out.glob(".removing-*"))


def test_a_dry_run_removes_nothing_and_parts_of_a_running_build_stay(tmp_path: Path) -> None:
    out = stand_ins(tmp_path, "a", "b")
    for name in "ab":
        publish(out, name)
    result = run("prune", "--out", out, "--keep", 0, "--dry-run")
    assert result.stdout == "a\n" and (out / "a").is_dir()
    (out / ".parts-0123").mkdir()
    with locked(out, ".build.lock", timeout_s=1):
        assert run("prune", "--out", out, "--keep", 0).exit_code == 0
    assert not (out / "a").exists() and (out / ".parts-0123").is_dir()


def test_prune_keeps_what_is_new_beside_a_current_build_of_another_contract(tmp_path: Path) -> None:
    out = stand_ins(tmp_path, "a", "now", "candidate")
    publish(out, "now")
    manifest = out / "now" / MANIFEST_FILE
    made = manifest.stat().st_mtime_ns
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"contract_version": 1}))
    os.utime(manifest, ns=(made, made))
    assert [path.name for path in to_prune(out, keep=0)] == ["a"]


def test_prune_takes_none_for_older_than_a_current_build_that_is_gone(tmp_path: Path) -> None:
    out = stand_ins(tmp_path, "a", "b", "now")
    for name in ("b", "now"):
        publish(out, name)
    shutil.rmtree(out / "now")
    assert [path.name for path in to_prune(out, keep=0)] == ["b"]


def test_prune_leaves_a_build_that_is_served_and_says_so(tmp_path: Path) -> None:
    out = stand_ins(tmp_path, "a", "b", "c")
    for name in "ab":
        decoder_in(out / name).parent.mkdir(parents=True)
        decoder_in(out / name).write_bytes(b"graph")
    for name in "abc":
        publish(out, name)
    with hold(out / "a"):
        for options in (("--dry-run",), ()):
            result = run("prune", "--out", out, "--keep", 0, *options)
            assert result.stdout == "b\n" and result.stderr.startswith("a stays: a service uses it")
    assert (out / "a").is_dir() and not (out / "b").exists()
    assert run("prune", "--out", out, "--keep", 0).stdout == "a\n" and not (out / "a").exists()


def test_a_service_holds_its_build_until_it_ends(out: Path) -> None:
    first, second = digests(out)
    for name in (first, second):
        publish(out, name)
    serving = EngineServer.open(decoder_in(out / first).parent, lambda _: np.zeros(0), lambda _metric, _amount: None)
    try:
        assert prune(out, [out / first]) == [out / first]
    finally:
        serving.close()
    assert prune(out, [out / first]) == [] and not (out / first).exists()


def test_a_build_made_again_after_a_prune_was_killed_can_be_pruned_again(tmp_path: Path) -> None:
    out = stand_ins(tmp_path, "a", "b")
    for name in "ab":
        publish(out, name)
    (out / ".removing-a").mkdir()
    (out / ".removing-a" / MANIFEST_FILE).write_text("{}")
    prune(out, [out / "a"])
    assert sorted(path.name for path in out.glob("[!.]*")) == ["b", CURRENT] and not list(out.glob(".removing-*"))


def test_prune_clears_away_what_killed_engines_left_and_nothing_that_is_at_work(tmp_path: Path) -> None:
    out = stand_ins(tmp_path, "a")
    publish(out, "a")
    (out / "engines" / ".partial-0123").mkdir(parents=True)
    with locked(out / "engines", ".engines.lock", timeout_s=1):
        prune(out, [])
    assert (out / "engines" / ".partial-0123").is_dir()
    prune(out, [])
    assert not (out / "engines" / ".partial-0123").exists()


KILLS = 300
KILLED = """
import os, random, select, signal, sys
from pathlib import Path
import export
from export.store.publish import current, history, publish, rollback
from glmserve.build.manifest import Manifest

out, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
folder = str(Path(export.__file__).parent)
random.seed(seed)

def lines_of(work, last=None, then=None):  # how many lines of the publisher `work` runs; `then` is called at the last
    count = 0
    def line(frame, event, _):
        nonlocal count
        count += event == "line"
        if count == last:
            sys.settrace(None)
            then()
        return line
    sys.settrace(lambda frame, event, _: line if frame.f_code.co_filename.startswith(folder) else None)
    work()
    sys.settrace(None)
    return count

def work():
    while True:
        publish(out, "a")
        publish(out, "b")
        rollback(out)

publish(out, "a")
span = lines_of(lambda: publish(out, "b"))
seen, killed = set(), 0
for number in range(kills):
    before = current(out).number
    reads, writes = os.pipe()
    last = random.randint(1, 3 * span)
    child = os.fork()
    if child == 0:  # every second one dies at the line itself, the others after it, in the middle of a call too
        me = os.getpid()
        lines_of(work, last, lambda: os.kill(me, signal.SIGKILL) if number % 2 else os.write(writes, b"."))
    os.close(writes)
    assert select.select([reads], [], [], 60)[0], "the publisher never came to its line"
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reads)
    killed += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    entry = current(out)
    served = (out / "current").resolve()
    assert served == out / entry.digest and Manifest.read(served).digest == entry.digest  # old or new, and whole
    chain = [choice.number for choice in history(out)]
    assert chain[-1] == 1 and chain == sorted(chain, reverse=True) and before in chain
    seen.add(entry.digest)
assert publish(out, "a" if current(out).digest == "b" else "b")
print(killed, *sorted(seen), len(history(out)))
"""


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory, where waiting for the disk costs nothing: a kill takes the process, not the machine."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def test_three_hundred_kills_leave_the_old_or_the_new_build_and_never_a_mixture(memory: Path) -> None:
    stand_ins(memory, "a", "b")
    seed = 7
    command = [sys.executable, "-c", KILLED, str(memory), str(KILLS), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    killed, *seen, choices = done.stdout.split()
    assert int(killed) == KILLS and seen == ["a", "b"] and int(choices) > 10
    assert (memory / CURRENT / MANIFEST_FILE).is_file()


@pytest.mark.parametrize(
    ("command", "exit_code"),
    [(("list",), 0), (("prune",), 0), (("publish", "abc"), Exit.BAD_ARTIFACT), (("rollback",), Exit.NOTHING_BEFORE)],
)
def test_a_folder_of_builds_that_is_not_there_is_told_and_not_made(
    tmp_path: Path, command: tuple[str, ...], exit_code: int
) -> None:
    result = run(*command, "--out", tmp_path / "none")
    assert result.exit_code == exit_code and str(tmp_path / "none") in result.stderr, result.stderr
    assert not (tmp_path / "none").exists()
