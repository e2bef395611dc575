"""A build that somebody serves is held, and whoever asks is told."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from glmserve.build.lock import hold, unused
from glmserve.build.manifest import decoder_in
from glmserve.errors import BadArtifact

HOLDER = """
import sys
from pathlib import Path
from glmserve.build.lock import hold
held = hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def build(tmp_path: Path) -> Path:
    decoder_in(tmp_path).parent.mkdir(parents=True)
    decoder_in(tmp_path).write_bytes(b"graph")
    return tmp_path


def is_unused(build: Path) -> bool:
    with unused(build) as found:
        return found


def test_a_build_is_in_use_until_the_last_who_holds_it_lets_go(build: Path) -> None:
    assert is_unused(build)
    with hold(build):
        with hold(build):
            assert not is_unused(build)
        assert not is_unused(build)
    assert is_unused(build)


def test_a_process_that_is_killed_lets_go(build: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(build)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert not is_unused(build)
        holder.kill()
    assert is_unused(build)


def test_a_build_is_held_through_a_folder_of_links_to_it(build: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    engine = tmp_path_factory.mktemp("engine")
    (engine / "model_repository").mkdir()
    (engine / "model_repository" / "glm4v").symlink_to(build / "model_repository" / "glm4v")
    with hold(engine):
        assert not is_unused(build)


def test_who_only_looks_keeps_nobody_from_serving(build: Path) -> None:
    held = threading.Event()
    with unused(build):
        thread = threading.Thread(target=lambda: hold(build).close() or held.set())
        thread.start()
        assert not held.wait(0.2)
    assert held.wait(4)
    thread.join(4)


def test_a_build_taken_away_meanwhile_is_not_served(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = fcntl.flock

    def lock_after_removal(*arguments: object) -> None:
        decoder_in(build).unlink(missing_ok=True)
        lock(*arguments)

    monkeypatch.setattr(fcntl, "flock", lock_after_removal)
    with pytest.raises(BadArtifact, match="was removed"):
        hold(build)


def test_a_build_without_a_decoder_cannot_be_held_and_is_in_nobodys_use(tmp_path: Path) -> None:
    assert is_unused(tmp_path)
    with pytest.raises(BadArtifact, match=r"decoder\.onnx"):
        hold(tmp_path)


def test_where_there_are_no_locks_a_build_is_served_and_nobody_removes_it(
    build: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    hold(build).close()
    assert "knows no locks" in caplog.text and not is_unused(build)
