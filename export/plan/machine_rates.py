"""How fast this machine does what an export is made of, measured in two seconds or more on numbers of our own."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from export.quantize.blockwise import find_scales, round_to_codes
from export.quantize.per_channel_int8 import byte_codes, output_scales

_LEAST_S = 0.3
_FILE_BYTES = 48 * 1024**2
_CHUNK_BYTES = 16 * 1024**2
_ROWS, _COLUMNS = 256, 4096
_SAMPLES = 256


@dataclass(frozen=True)
class Rates:
    """Bytes a second: of hashing, of reading from the disk, of loading what memory holds already, of writing with
    hashing and until it is safe, of turning a checkpoint's numbers into a build's, and of rounding them to 8 and to 4
    bits (the last three by bytes read)."""

    hashing: float
    reading: float
    loading: float
    writing: float
    casting: float
    rounding: dict[int, float]


@dataclass(frozen=True)
class Measured:
    """The same rates by two clocks: the wall's, which everything else that goes on here slows down, and the core's."""

    wall: Rates
    core: Rates


def measure(folder: Path, stored: np.dtype, real: np.dtype) -> Measured:
    """The rates on the disk of `folder` as they are now, for a checkpoint that stores its numbers as `stored` and a
    build that computes in `real`."""
    sample = np.random.default_rng(0).standard_normal((_ROWS, _COLUMNS), np.float32).astype(stored)
    numbers = np.resize(sample, _FILE_BYTES // sample.itemsize)
    content = numbers.view(np.uint8).data
    hashing = _pace(lambda: hashlib.sha256(content), _FILE_BYTES)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".forecast-") as file:
        writing = _pace(lambda: _write(file.fileno(), content), _FILE_BYTES)
        reading = _pace(lambda: _read(file.fileno()), _FILE_BYTES)
        loading = _pace(lambda: _load(file.fileno()), _FILE_BYTES)
    casting = _pace(lambda: numbers.astype(real), _FILE_BYTES)
    by_output = real == np.float32  # how a build for a processor rounds to 8 bits
    eight = _pace(partial(_round_by_output if by_output else partial(_round, bits=8), sample), sample.nbytes)
    four = _pace(partial(_round, sample, bits=4), sample.nbytes)

    def by(clock: int) -> Rates:
        return Rates(
            hashing=hashing[clock],
            reading=reading[clock],
            loading=loading[clock],
            writing=writing[clock],
            casting=casting[clock],
            rounding={8: eight[clock], 4: four[clock]},
        )

    return Measured(wall=by(0), core=by(1))


def cached_share(path: Path) -> float:
    """The share of a file that the system holds in memory, judged by some places; nothing is fetched from the disk."""
    size, held = path.stat().st_size, 0
    with path.open("rb") as file:
        for index in range(_SAMPLES):
            try:
                os.preadv(file.fileno(), [bytearray(1)], size * index // _SAMPLES, os.RWF_NOWAIT)
                held += 1
            except OSError as error:
                if error.errno == errno.EOPNOTSUPP:
                    return 0.0
    return held / _SAMPLES


def resident_bytes() -> int:
    """What this process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def running_s() -> float:
    """Seconds since this process was started, its imports included."""
    ticks = int(Path("/proc/self/stat").read_text("ascii").rsplit(")", 1)[1].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def _pace(work: Callable[[], object], size: int) -> tuple[float, float]:
    """Bytes a second, by the wall's clock and by the core's, of work on `size` bytes; it is done again and again for
    long enough to see what else goes on here."""
    began_s, core_began_s, runs = time.monotonic(), time.process_time(), 0
    while time.monotonic() - began_s < _LEAST_S:
        work()
        runs += 1
    wall_s, core_s = time.monotonic() - began_s, time.process_time() - core_began_s
    return size * runs / wall_s, size * runs / max(core_s, 1e-6)


def _write(handle: int, content: memoryview) -> None:
    """On and on, as a build does: room that is used again is had for less."""
    digest = hashlib.sha256()
    for begin in range(0, len(content), _CHUNK_BYTES):
        digest.update(content[begin : begin + _CHUNK_BYTES])
        os.write(handle, content[begin : begin + _CHUNK_BYTES])
    os.fsync(handle)


def _read(handle: int) -> None:
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.lseek(handle, 0, os.SEEK_SET)
    for _ in range(_FILE_BYTES // _CHUNK_BYTES):
        os.read(handle, _CHUNK_BYTES)


def _load(handle: int) -> None:
    with mmap.mmap(handle, _FILE_BYTES, prot=mmap.PROT_READ) as view:
        bytes(view)


def _round(weight: np.ndarray, bits: int) -> None:
    round_to_codes(weight, find_scales(weight, bits), bits)


def _round_by_output(weight: np.ndarray) -> None:
    byte_codes(weight, output_scales(weight))
