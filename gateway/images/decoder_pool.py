"""Decodes images in processes of their own, each of which is ended when its image takes too long or nobody waits."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL
from numpy.typing import NDArray

import gateway
from gateway.deadline import Deadline
from gateway.images.job import Job, Outcome
from gateway.images.videos.job import FACTS_BYTES, Facts, VideoJob, packed_numbers
from gateway.triton.backend import Cancellation
from glmserve.errors import Cancelled, DeadlineExceeded, Overloaded
from glmserve.limits import LARGEST_KEPT_BUFFER_BYTES
from glmserve.system.idle_processes import IdleProcesses, has_ended
from glmserve.system.stopped import is_stopped

T = TypeVar("T")
_JOBS_A_PROCESS = 1000
"""After so many images a process is replaced, whatever it may have lost by then."""
_KEPT_SHARED_BYTES = 4 << 20
_KEPT_BYTES = 96 << 20
"""Freed memory that a process keeps between two images, as 12 megapixels need it: to fault it in anew for each took
a third as much time again. It goes back when none come."""
_END_WAIT_S = 0.2
_COUNT_BYTES = 4
_COMMAND = (sys.executable, "-S", "-P", "-W", "ignore", "-m", "gateway.images.decoder_process")


class DecodingFailed(Exception):
    """An image that was not decoded: `outcome` says why, None if it used up its processor time."""

    def __init__(self, outcome: Outcome | None) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class DecoderPool:
    """As many processes as images are decoded at a time; the first image starts the first one.

    Any thread may decode. Who calls bounds how many do so together.
    """

    def __init__(self) -> None:
        self._processes = IdleProcesses(_Decoder)

    def decode(
        self, parts: Sequence[bytes | memoryview], job: Job, deadline: Deadline, cancellation: Cancellation
    ) -> NDArray[np.uint8]:
        """The image's planes, u8 [3, height, width]; raises DecodingFailed, DeadlineExceeded and Cancelled.

        Deadline and cancellation end the process, and the call returns at once.
        """
        return self._asked(lambda decoder, left_s: decoder.decode(parts, job, left_s), deadline, cancellation)

    def facts(self, file: bytes, job: VideoJob, deadline: Deadline, cancellation: Cancellation) -> Facts:
        """What a video's file holds; raises as `decode` does."""
        return self._asked(lambda decoder, left_s: decoder.facts(file, job, left_s), deadline, cancellation)

    def frames(
        self, file: bytes, numbers: Sequence[int], job: VideoJob, deadline: Deadline, cancellation: Cancellation
    ) -> list[NDArray[np.uint8]]:
        """Planes u8 [3, height, width] of the frames of a video with these numbers; raises as `decode` does."""
        return self._asked(lambda decoder, left_s: decoder.frames(file, numbers, job, left_s), deadline, cancellation)

    def _asked(self, ask: Callable[[_Decoder, float], T], deadline: Deadline, cancellation: Cancellation) -> T:
        decoder = self._processes.take()
        task = _Task(decoder)
        cancellation.add_callback(task.abandon)
        try:
            return ask(decoder, deadline.left_s())
        except TimeoutError:
            raise DeadlineExceeded from None
        except _HungUp:
            if cancellation.is_cancelled:
                raise Cancelled from None
            raise _why(decoder.end()) from None
        finally:
            if task.is_over() and decoder.is_ready and decoder.jobs_left:
                self._processes.give_back(decoder)
            else:
                decoder.end()

    def close(self) -> None:
        """Ends all processes that decode nothing; one that does ends with its image."""
        self._processes.close()


class _HungUp(Exception):
    """A process ended without a word."""


class _Task:
    """What a departure ends, as long as it is not over: the decoder is somebody else's then."""

    def __init__(self, decoder: _Decoder) -> None:
        self._lock = threading.Lock()
        self._decoder: _Decoder | None = decoder
        self._is_abandoned = False

    def abandon(self) -> None:
        with self._lock:
            if self._decoder is not None:
                self._is_abandoned = True
                self._decoder.hang_up()

    def is_over(self) -> bool:
        """Ends the task; whether it came to its own end."""
        with self._lock:
            self._decoder = None
            return not self._is_abandoned


class _Decoder:
    """One decoding process, its socket, and the memory that both sides read and write."""

    def __init__(self) -> None:
        self.jobs_left = _JOBS_A_PROCESS
        self.is_ready = True
        self._socket, theirs = socket.socketpair()
        self._shared = os.memfd_create("image")
        with theirs:
            self._process = subprocess.Popen(
                [*_COMMAND, str(theirs.fileno()), str(self._shared)],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), self._shared),
            )

    def decode(self, parts: Sequence[bytes | memoryview], job: Job, timeout_s: float) -> NDArray[np.uint8]:
        """Raises TimeoutError, _HungUp and DecodingFailed; after the first two the process has to be ended."""
        self._ask(parts, job.file_bytes, job.packed(), timeout_s)
        planes = np.empty((3, job.final_height, job.final_width), np.uint8)
        os.preadv(self._shared, [planes.data], 0)
        self._shrink(max(job.file_bytes, planes.nbytes))
        return planes

    def facts(self, file: bytes, job: VideoJob, timeout_s: float) -> Facts:
        """Raises as `decode` does."""
        self._ask([file], job.sent_bytes, job.packed(), timeout_s)
        found = Facts.unpacked(os.pread(self._shared, FACTS_BYTES, 0))
        self._shrink(job.sent_bytes)
        return found

    def frames(self, file: bytes, numbers: Sequence[int], job: VideoJob, timeout_s: float) -> list[NDArray[np.uint8]]:
        """Raises as `decode` does."""
        self._ask([file, packed_numbers(numbers)], job.sent_bytes, job.packed(), timeout_s)
        begin = job.sent_bytes + _COUNT_BYTES
        count = int.from_bytes(os.pread(self._shared, _COUNT_BYTES, job.sent_bytes), "little")
        frames = []
        for number in range(min(count, len(numbers))):
            planes = np.empty((3, job.final_height, job.final_width), np.uint8)
            os.preadv(self._shared, [planes.data], begin + number * job.frame_bytes)
            frames.append(planes)
        self._shrink(begin + count * job.frame_bytes)
        return frames

    def _ask(self, parts: Sequence[bytes | memoryview], size: int, job: bytes, timeout_s: float) -> None:
        self.is_ready = False
        self.jobs_left -= 1
        written = os.pwritev(self._shared, parts, 0)
        assert written == size
        self._socket.settimeout(timeout_s)
        try:
            self._socket.sendall(job)
            said = self._socket.recv(1)
        except ConnectionError:
            said = b""
        if not said:
            raise _HungUp
        outcome = Outcome(said[0])
        if outcome is not Outcome.DONE:
            self.is_ready = outcome is Outcome.UNDECODABLE
            raise DecodingFailed(outcome)
        self.is_ready = True

    def _shrink(self, used_bytes: int) -> None:
        if used_bytes > _KEPT_SHARED_BYTES:
            os.ftruncate(self._shared, _KEPT_SHARED_BYTES)

    def is_fit(self) -> bool:
        return self._process.poll() is None and not is_stopped(self._process.pid)

    def hang_up(self) -> None:
        """Ends the process if it decodes, and wakes who waits for it; any thread may call it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def end(self) -> int:
        """Ends the process in any case and lets go of everything; its exit code."""
        if self._shared >= 0:
            self.hang_up()
            has_ended(self._process, _END_WAIT_S)
            self._socket.close()
            os.close(self._shared)
            self._shared = -1
        return self._process.returncode


def _why(exit_code: int) -> Exception:
    if exit_code == -signal.SIGPROF:
        return DecodingFailed(None)
    if exit_code == -signal.SIGKILL:  # by the kernel, for want of memory, or by an operator
        return Overloaded()
    return DecodingFailed(Outcome.UNDECODABLE)


def _environment() -> dict[str, str]:
    """None of our own settings; where the two packages lie, and buffers that are used again, as in a worker."""
    folders = {str(Path(str(package.__file__)).parent.parent): None for package in _packages()}
    return {
        "PYTHONPATH": os.pathsep.join(folders),
        "MALLOC_ARENA_MAX": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": str(LARGEST_KEPT_BUFFER_BYTES),
        "MALLOC_TRIM_THRESHOLD_": str(_KEPT_BYTES),
    }


def _packages() -> Sequence[Any]:
    return gateway, PIL
