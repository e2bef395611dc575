"""A folder goes with its process: at its end by its own hand, after a kill by the next one's."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from glmserve.system.runtime_folder import RuntimeFolder

DIES = """
import os, sys
from glmserve.system.runtime_folder import RuntimeFolder
print(RuntimeFolder(sys.argv[1]).path, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def prefix() -> str:
    return f"glm-test-{uuid.uuid4().hex[:8]}-"


def abandoned(prefix: str) -> Path:
    done = subprocess.run([sys.executable, "-c", DIES, prefix], capture_output=True, text=True, timeout=30, check=False)
    folder = Path(done.stdout.strip())
    assert folder.is_dir()
    return folder


def test_what_a_killed_process_left_is_removed_by_the_next_with_all_that_belongs_to_it(prefix: str) -> None:
    left, gone = abandoned(prefix), []
    folder = RuntimeFolder(prefix, gone.append)
    assert not left.exists() and gone == [left]
    folder.remove()
    assert not folder.path.exists() and gone == [left, folder.path]


def test_the_folder_of_a_process_that_lives_stays(prefix: str) -> None:
    first = RuntimeFolder(prefix)
    second = RuntimeFolder(prefix)
    assert first.path.is_dir()
    first.remove()
    second.remove()


def test_a_link_in_a_folders_place_is_left_alone(prefix: str, tmp_path: Path) -> None:
    (tmp_path / ".owner").touch()
    link = Path("/tmp") / f"{prefix}link"
    link.symlink_to(tmp_path)
    try:
        RuntimeFolder(prefix).remove()
        assert tmp_path.is_dir()
    finally:
        link.unlink()
