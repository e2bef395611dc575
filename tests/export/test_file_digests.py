"""A large file's digest is remembered as long as it is the same file, and never a moment longer."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest
from random_checkpoints import DEMO
from rich.console import Console
from shared_builds import build_of_demo, copied

from export.build import pipeline
from export.build.tensor_writer import digest_of
from export.store.file_digests import FILE, FileDigests

LONG_AGO_NS = 1_700_000_000_000_000_000
CONTENT = random.Random(5).randbytes(3 << 20)


class Reader:
    """Reads files, and counts how many."""

    def __init__(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.times = 0
        self._meanwhile = meanwhile

    def __call__(self, file: BinaryIO) -> str:
        self.times += 1
        digest = hashlib.sha256(file.read()).hexdigest()
        self._meanwhile()
        return digest


def aged(path: Path, content: bytes = CONTENT, when_ns: int = LONG_AGO_NS) -> Path:
    path.write_bytes(content)
    os.utime(path, ns=(when_ns, when_ns))
    return path


def learn(folder: Path, path: Path) -> str:
    digests, reader = FileDigests.open(folder), Reader()
    found = digests.of(path, reader)
    digests.save()
    assert reader.times == 1
    return found


def test_a_file_is_read_once_for_all_exports(tmp_path: Path) -> None:
    path, again = aged(tmp_path / "shard"), Reader()
    assert learn(tmp_path, path) == FileDigests.open(tmp_path).of(path, again) == hashlib.sha256(CONTENT).hexdigest()
    assert again.times == 0


def _grow(path: Path) -> None:
    aged(path, CONTENT + b"x")


def _touch(path: Path) -> None:
    os.utime(path)


def _replace(path: Path) -> None:
    """By another file of its size, which keeps its time, as a copy does."""
    other = aged(path.with_name("other"), bytes(len(CONTENT)))
    other.replace(path)


def _write_within(path: Path) -> None:
    """In place, and puts the time back."""
    aged(path, bytes(len(CONTENT)))


@pytest.mark.parametrize("change", [_grow, _touch, _replace, _write_within])
def test_a_file_that_was_changed_is_read_again(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path, again = aged(tmp_path / "shard"), Reader()
    learn(tmp_path, path)
    change(path)
    assert FileDigests.open(tmp_path).of(path, again) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert again.times == 1


def test_a_copy_is_another_file(tmp_path: Path) -> None:
    path, again = aged(tmp_path / "shard"), Reader()
    learn(tmp_path, path)
    FileDigests.open(tmp_path).of(Path(shutil.copy2(path, tmp_path / "copy")), again)
    assert again.times == 1


def test_a_file_that_changes_while_it_is_read_is_not_remembered(tmp_path: Path) -> None:
    path = aged(tmp_path / "shard")
    digests = FileDigests.open(tmp_path)
    digests.of(path, Reader(lambda: aged(path, CONTENT + b"more")))
    digests.save()
    assert not (tmp_path / FILE).exists()


def test_a_file_that_was_written_just_now_is_not_remembered(tmp_path: Path) -> None:
    """It may be written again within its clock's grain."""
    path = tmp_path / "shard"
    path.write_bytes(CONTENT)
    digests = FileDigests.open(tmp_path)
    digests.of(path, Reader())
    digests.save()
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', '{"a": {"size": 1}}', "\x00"])
def test_a_broken_store_remembers_nothing_and_is_mended(tmp_path: Path, text: str) -> None:
    path, again = aged(tmp_path / "shard"), Reader()
    (tmp_path / FILE).write_text(text)
    learn(tmp_path, path)
    FileDigests.open(tmp_path).of(path, again)
    assert again.times == 0


def test_exports_at_the_same_time_forget_nothing_of_one_another(tmp_path: Path) -> None:
    paths = [aged(tmp_path / f"shard{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda path: learn(tmp_path, path), paths))
    digests, again = FileDigests.open(tmp_path), Reader()
    for path in paths:
        digests.of(path, again)
    assert again.times == 0


def test_what_is_gone_is_forgotten_and_a_folder_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    path, other = aged(tmp_path / "shard"), aged(tmp_path / "other")
    learn(tmp_path, path)
    path.unlink()
    learn(tmp_path, other)
    assert str(path) not in (tmp_path / FILE).read_text()
    digests = FileDigests.open(tmp_path / "nowhere")
    digests.of(other, Reader())
    digests.save()


def test_an_existing_build_is_found_without_reading_large_files_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the checkpoint's nor its own."""
    copied(build_of_demo(), tmp_path)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    build, read = pipeline.build, list[int]()

    def counted(file: BinaryIO, advance: Callable[[int], None]) -> object:
        read.append(os.fstat(file.fileno()).st_size)
        return digest_of(file, advance)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "digest_of", counted)
    first = build(DEMO, tmp_path, Console(quiet=True))
    assert max(read) > 1 << 20
    read.clear()
    assert build(DEMO, tmp_path, Console(quiet=True)) == first
    assert max(read, default=0) < 1 << 20
