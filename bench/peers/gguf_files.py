"""A checkpoint in llama.cpp's format, made by llama.cpp's own programs."""

from __future__ import annotations

import shutil
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bench.peers.environment import LLAMA_QUANTIZE, LLAMA_SOURCES, PROGRAMS, PYTHON
from launcher.children import ending_with_us

_TIMEOUT_S = 7200.0  # a model of 9 billion parameters on one busy core


class GgufType(StrEnum):
    """How llama.cpp rounds weights: blocks of 32 with one 16-bit scale."""

    Q8_0 = "q8_0"
    Q4_0 = "q4_0"


@dataclass(frozen=True)
class GgufFiles:
    """A model as llama.cpp's server takes it: the text model, and the image encoder, which is in Q8_0 beside any."""

    text: Path
    images: Path


def converted(checkpoint: Path, folder: Path, rounded: GgufType = GgufType.Q8_0) -> GgufFiles:
    """The checkpoint's files in `folder`, made where they are not there yet. llama.cpp's converter writes no Q4_0, so
    its quantizer makes that of Q8_0. Raises RuntimeError with the end of what a program of theirs printed."""
    files = GgufFiles(folder / "text.gguf", folder / "images.gguf")
    if folder.is_dir():
        return files
    for left in folder.parent.glob(f".partial-{folder.name}-*"):  # by one that was killed
        shutil.rmtree(left, ignore_errors=True)
    partial = folder.with_name(f".partial-{folder.name}-{uuid.uuid4().hex}")
    partial.mkdir(parents=True)
    try:
        text, images = partial / files.text.name, partial / files.images.name
        _convert(checkpoint, images, "--mmproj")
        if rounded is GgufType.Q8_0:
            _convert(checkpoint, text)
        else:
            whole = partial / "q8_0.gguf"
            _convert(checkpoint, whole)
            _run("quantizer", [str(LLAMA_QUANTIZE), "--allow-requantize", str(whole), str(text), rounded.value])
            whole.unlink()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return files


def _convert(checkpoint: Path, out: Path, *options: str) -> None:
    program = [str(PYTHON), str(PROGRAMS / "gguf_convert.py"), str(LLAMA_SOURCES)]
    _run("converter", [*program, str(checkpoint), "--outtype", "q8_0", "--outfile", str(out), *options])


def _run(name: str, command: Sequence[str]) -> None:
    done = subprocess.run(
        ending_with_us(list(command)), capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"llama.cpp's {name} failed:\n{(done.stderr or done.stdout)[-2000:]}")
