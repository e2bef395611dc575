"""A disk that is full ends every command with one sentence and its exit code, and leaves what was there as it was."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from shared_builds import build_of_demo, copied

from export.build.vision_backend import VisionBackend
from export.certificate.writer import check_writable
from export.errors import Exit, NoAccess, is_full
from export.precision import Precision, Target
from glmserve.build.manifest import CERTIFICATE_FILE, CURRENT

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
ENGINE = """
import export.tensorrt.engine_cache as engines
engines.EngineKey.here = staticmethod(lambda digest: engines.EngineKey(digest, "9.0", "10.15.1"))
engines.vision_plan = lambda *_: bytes(9000)
"""


def run(room: int, *arguments: object, before: str = "") -> subprocess.CompletedProcess[str]:
    """A command whose files the system lets grow to so many bytes, as where a quota or the disk ends."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))"
    code = f"{limit}\n{before}\nfrom export.cli import main\nmain()"
    command = [sys.executable, "-B", "-c", code, *map(str, arguments)]  # -B: or half of a .pyc would stay
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def assert_full(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == Exit.DISK_FULL, done.stderr
    assert "is full" in done.stderr and "Traceback" not in done.stderr


def test_a_build_whose_first_small_files_find_no_room(tmp_path: Path) -> None:
    assert_full(run(3000, "build", "--checkpoint", DEMO, "--out", tmp_path))
    assert not list(tmp_path.glob("[!.]*"))


def test_verify_finds_out_before_it_compares(tmp_path: Path) -> None:
    made = copied(build_of_demo(), tmp_path)
    right = (made / CERTIFICATE_FILE).read_bytes()
    done = run(1000, "verify", made, "--checkpoint", DEMO, "--samples", 1)
    assert_full(done)
    assert not done.stdout and (made / CERTIFICATE_FILE).read_bytes() == right


def test_a_build_that_takes_no_certificate_is_named_before_anything_is_compared() -> None:
    """/proc lets nobody make anything, root neither."""
    with pytest.raises(NoAccess, match="No certificate can be written into /proc: "):
        check_writable(Path("/proc"))


def test_publish_and_a_certificate_that_is_made_again_find_no_room_and_plan_needs_none(tmp_path: Path) -> None:
    made = copied(build_of_demo(), tmp_path)
    assert_full(run(0, "publish", made.name, "--out", tmp_path))
    assert not (tmp_path / CURRENT).exists()
    assert run(0, "plan", "--checkpoint", DEMO, "--out", tmp_path).returncode == 0
    (made / CERTIFICATE_FILE).unlink()
    assert_full(run(1000, "build", "--checkpoint", DEMO, "--out", tmp_path))


def test_an_engine_that_finds_no_room(tmp_path: Path) -> None:
    made = copied(build_of_demo(Precision.FP16, Target.CUDA, VisionBackend.TENSORRT), tmp_path)
    (tmp_path / "engines").mkdir()
    assert_full(run(3000, "tensorrt", made, before=ENGINE))
    assert not list((tmp_path / "engines").rglob("model.plan"))


@pytest.mark.parametrize(("number", "expected"), [(errno.ENOSPC, True), (errno.EACCES, False)])
def test_a_tree_that_could_not_be_copied_says_why(number: int, expected: bool, tmp_path: Path) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError(number, "no", target)

    with pytest.raises(shutil.Error) as caught:
        shutil.copytree(DEMO, tmp_path / "copy", copy_function=refuse)
    assert is_full(caught.value) is expected
