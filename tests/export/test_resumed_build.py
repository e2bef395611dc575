"""A build that was killed goes on where it stopped, and ends as if nothing had happened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from rich.console import Console

from export.build import tensor_writer
from export.build.pipeline import build
from export.build.tensor_writer import Journal, Progress, offsets_of, write_tensors
from export.precision import Precision
from glmserve.build.manifest import Manifest

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
QUIET = Console(quiet=True)
KILLED = """
import os, signal, sys
from pathlib import Path
from rich.console import Console
from export.build import tensor_writer
from export.build.pipeline import build
from export.precision import Precision
out, precision, left = Path(sys.argv[1]), Precision(sys.argv[2]), list(map(int, sys.argv[3:]))
write_bytes = tensor_writer._write_bytes

def dying(file, content, *rest):
    left[0] -= 1
    if left[0] < 0:  # a kill that hits in the middle of a tensor
        file.write(bytes(content[: len(content) // 2]))
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    write_bytes(file, content, *rest)

tensor_writer._write_bytes = dying
tensor_writer.write_tensors.__defaults__ = (100_000,)  # a note for each 100 kB
for index in range(len(left)):
    if os.fork() == 0:
        build(Path("demo/checkpoint"), out, Console(quiet=True), precision)
        os._exit(0)
    _, status = os.wait()
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
    left.pop(0)
"""


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a build; its certificate is none of them, and tells when it was made."""
    return {name: (folder / name).read_bytes() for name in (*Manifest.read(folder).files, "manifest.json")}


@pytest.mark.parametrize(
    ("precision", "kills"),  # after so many writes of a tensor or of the gap before it
    [(Precision.FP32, "0 41 20 30 25 30"), (Precision.INT4, "0 60 40 50 40 50")],
)
def test_a_build_killed_again_and_again_ends_byte_for_byte_the_same(
    tmp_path: Path, precision: Precision, kills: str
) -> None:
    out = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, str(out), precision, *kills.split()]
    subprocess.run(command, cwd=DEMO.parents[1], timeout=120, check=True)
    assert not list(out.glob("[!.]*"))  # nothing half-written is in sight
    (parts,) = out.glob(".parts-*")
    done = Journal(parts / "journal.jsonl")
    assert done.progress("vision.data").sha256 and done.progress("decoder.data").tensors
    resumed = build(DEMO, out, QUIET, precision)
    whole = build(DEMO, tmp_path / "whole", QUIET, precision)
    assert resumed.name == whole.name and content(resumed) == content(whole)
    Manifest.read(resumed).check(resumed)
    assert not list(out.glob(".parts-*"))


def tensors(count: int) -> tuple[list[ir.LazyTensor], list[int]]:
    """Tensors of different sizes that note when they are read."""
    read: list[int] = []

    def lazy(index: int) -> ir.LazyTensor:
        def load() -> ir.Tensor:
            read.append(index)
            return ir.Tensor(np.full(100 + index, index, np.float32))

        return ir.LazyTensor(load, ir.DataType.FLOAT, ir.Shape((100 + index,)), name=str(index))

    return [lazy(index) for index in range(count)], read


def test_finished_tensors_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values, read = tensors(12)
    values[8] = ir.LazyTensor(_fail, ir.DataType.FLOAT, ir.Shape((108,)), name="8")
    journal, path = Journal(tmp_path / "journal"), tmp_path / "weights.data"
    with pytest.raises(InterruptedError):
        write_tensors(values, path, journal, lambda _: None, sync_bytes=1000)
    assert read == list(range(8))
    values[8] = tensors(12)[0][8]
    digest = write_tensors(values, path, journal, lambda _: None, sync_bytes=1000)
    assert read[8:] == [index for index in read[8:] if index >= journal_before(8)] and 0 not in read[8:]
    assert path.stat().st_size == offsets_of(values)[-1]
    again: list[int] = []
    monkeypatch.setattr(tensor_writer, "_write_bytes", lambda *_: again.append(1))
    assert write_tensors(values, path, journal, lambda _: None) == digest and not again


def journal_before(index: int) -> int:
    """The first tensor after the last note that was made before `index`: one is made every three of these."""
    return index - index % 3


def _fail() -> ir.Tensor:
    raise InterruptedError


def test_a_note_that_a_kill_cut_short_counts_for_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.note("a", Progress(3, 300))
    with journal.path.open("ab") as file:
        file.write(b'\n{"file": "a", "tens')
    assert journal.progress("a") == Progress(3, 300)
    journal.note("a", Progress(5, 500, "abc"))
    assert journal.progress("a") == Progress(5, 500, "abc") and journal.progress("b") == Progress(0, 0)


def test_a_file_shorter_than_its_note_is_written_anew(tmp_path: Path) -> None:
    values, read = tensors(3)
    journal, path = Journal(tmp_path / "journal"), tmp_path / "weights.data"
    digest = write_tensors(values, path, journal, lambda _: None)
    path.write_bytes(path.read_bytes()[:-1])
    assert write_tensors(values, path, journal, lambda _: None) == digest and read == [0, 1, 2, 0, 1, 2]
