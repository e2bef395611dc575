"""Decodes one image in processes of its own and tells what that took of processor time and memory."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import hostile_images
from decoding import limits

from bench.usage import words_of
from gateway.chat.image_decoder import ImageSizeLimits, OpenedImage
from gateway.deadline import Deadline
from gateway.images.decoder_pool import DecoderPool
from gateway.triton.backend import Cancellation
from glmserve.errors import GlmServeError

WAIT_S = 60
_LOOK_EVERY_S = 0.003
_PROGRAM = "gateway.images.decoder_process"


@dataclass
class Cost:
    """What a file took: processor time of both sides, and by how much the decoding process grew at the most."""

    structure_s: float = 0.0
    cpu_s: float = 0.0
    grown_bytes: int = 0
    pixels: int = 0
    refusal: str | None = None


def cost_of(data: bytes, rules: ImageSizeLimits | None = None) -> Cost:
    """The file is opened and decoded at its own size, after a small image that starts the process."""
    return measured(
        lambda pool: planes(pool, hostile_images.small_jpeg(), limits()),
        lambda pool, cost: planes(pool, data, rules or limits(max_side=2048), cost),
    )


def measured(start: Callable[[DecoderPool], None], act: Callable[[DecoderPool, Cost], None]) -> Cost:
    """What `act` takes with a pool whose process has been started by `start`."""
    cost, others = Cost(), set(decoder_pids())
    with closing(DecoderPool()) as pool:
        start(pool)
        begun_s = resource.getrusage(resource.RUSAGE_CHILDREN)
        (pid,) = set(decoder_pids()) - others
        started_s = _cpu_s(pid)
        with _watched(cost, pid):
            before_s = time.thread_time()
            try:
                act(pool, cost)
            except GlmServeError as error:
                cost.refusal = error.message
            cost.cpu_s = time.thread_time() - before_s
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost.cpu_s += ended.ru_utime + ended.ru_stime - begun_s.ru_utime - begun_s.ru_stime - started_s
    return cost


def planes(pool: DecoderPool, data: bytes, rules: ImageSizeLimits, cost: Cost | None = None) -> None:
    before_s = time.thread_time()
    try:
        opened = OpenedImage(data, rules)
    finally:
        if cost is not None:
            cost.structure_s = time.thread_time() - before_s
    if cost is not None:
        cost.pixels = opened.file.width * opened.file.height
    opened.planes(pool, opened.size, Deadline.after(WAIT_S), Cancellation())


def decoder_pids() -> list[int]:
    """The decoding processes of this process."""
    return [pid for pid in _pids() if _is_ours(pid)]


def _pids() -> Iterator[int]:
    return (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit())


def is_decoder(pid: int) -> bool:
    """Whether a process decodes images, for whomever."""
    return any(_PROGRAM in word for word in words_of(pid))


def _is_ours(pid: int) -> bool:
    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text("utf-8")
        return f"PPid:\t{_own_pid()}\n" in status and is_decoder(pid)
    return False


def _own_pid() -> int:
    return int(Path("/proc/self").readlink().name)


def _cpu_s(pid: int) -> float:
    """The processor time that another process has used by now."""
    return time.clock_gettime((~pid << 3) | 2)


@contextmanager
def _watched(cost: Cost, pid: int) -> Iterator[None]:
    is_over, before = threading.Event(), _peak_bytes(pid)

    def watch() -> None:
        while not is_over.wait(_LOOK_EVERY_S):
            with suppress(OSError, StopIteration):
                cost.grown_bytes = max(cost.grown_bytes, _peak_bytes(pid) - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(WAIT_S)


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
