"""The program of a decoding process: file after file becomes pixels, each within its own bounds of time and memory.

It imports little but Pillow. The kernel ends it when a file has used up its processor time, and when whoever asked
hangs up or dies, in the middle of whatever it decodes.
"""

from __future__ import annotations

import fcntl
import io
import os
import resource
import select
import signal
import socket
import sys
from pathlib import Path

from gateway.images.job import JOB_BYTES, Job, Outcome
from gateway.images.pixels import final_pixels, prepare, prepare_for
from gateway.images.videos.job import VideoJob

_IDLE_S = 5.0
_UNBOUNDED = resource.RLIM_INFINITY


def serve(parent: socket.socket, shared: int) -> None:
    """Decodes until `parent` hangs up; files come and pixels go in the memory behind the descriptor `shared`."""
    while packed := _next_job(parent):
        video = VideoJob.unpacked(packed)
        job = video or Job.unpacked(packed)
        _hang_up_ends_us(parent, True)
        if isinstance(job, Job):
            prepare_for(job.kind)
        else:
            import gateway.images.videos.answering  # noqa: F401  # before the clock runs: it is no file's to pay for
        signal.setitimer(signal.ITIMER_PROF, job.cpu_s)
        _bound_memory(_address_space_bytes() + job.memory_bytes)
        outcome = _decode(job, shared) if isinstance(job, Job) else _answer(job, shared)
        _bound_memory(_UNBOUNDED)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _hang_up_ends_us(parent, False)
        parent.send(bytes((outcome,)))


def _next_job(parent: socket.socket) -> bytes:
    """The next job, nothing once `parent` has hung up; after a while without one, freed memory goes back."""
    if not select.select((parent,), (), (), _IDLE_S)[0]:
        from glmserve.system.malloc import trim  # with ctypes, which the first images can do without

        trim()
    return parent.recv(JOB_BYTES, socket.MSG_WAITALL)


def _decode(job: Job, shared: int) -> Outcome:
    try:
        image = final_pixels(io.BytesIO(os.pread(shared, job.file_bytes, 0)), job)
        at = 0
        for plane in image.split():
            at += os.pwrite(shared, plane.tobytes(), at)
    except MemoryError:
        return Outcome.OUT_OF_MEMORY
    except Exception:  # hostile bytes draw almost any exception out of Pillow's readers
        return Outcome.UNDECODABLE
    return Outcome.DONE


def _answer(job: VideoJob, shared: int) -> Outcome:
    from gateway.images.videos.answering import answer_video

    return answer_video(job, shared)


def _hang_up_ends_us(parent: socket.socket, ends: bool) -> None:
    """While it does, the signal that the other side's end sends is not caught and so is our end."""
    flags = fcntl.fcntl(parent, fcntl.F_GETFL)
    fcntl.fcntl(parent, fcntl.F_SETFL, flags | os.O_ASYNC if ends else flags & ~os.O_ASYNC)
    if ends:
        try:
            parent.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        sys.exit()  # it hung up before


def _bound_memory(most_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (most_bytes, _UNBOUNDED))


def _address_space_bytes() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()


def main() -> None:
    """Its arguments are the two descriptors that it was given."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)  # whoever stops the service lets running answers end
    for name in (signal.SIGIO, signal.SIGPROF):
        signal.signal(name, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prepare()
    parent, shared = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    fcntl.fcntl(parent, fcntl.F_SETOWN, os.getpid())
    serve(parent, shared)


if __name__ == "__main__":
    main()
