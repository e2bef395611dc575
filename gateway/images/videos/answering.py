"""What a decoding process does with the job of a video. Imports FFmpeg, which takes a tenth of a second."""

from __future__ import annotations

import os

import numpy as np

from gateway.images.job import Outcome
from gateway.images.videos.animated_webp import facts_of_webp, frames_of_webp
from gateway.images.videos.container import FileOf, facts_of, frames_of
from gateway.images.videos.job import VideoJob, unpacked_numbers
from glmserve.model.bicubic import resized

_COUNT_BYTES = 4
resized(np.zeros((3, 2, 2), np.uint8), 3, 3)  # the memory that multiplying matrices takes is no file's to pay for


def answer_video(job: VideoJob, shared: int) -> Outcome:
    """Writes what is wanted into the memory behind the descriptor `shared`."""
    try:
        if job.task == "FACTS":
            _write_facts(job, shared)
        else:
            _write_frames(job, shared)
    except MemoryError:
        return Outcome.OUT_OF_MEMORY
    except Exception as error:  # hostile bytes draw almost any exception out of FFmpeg
        return Outcome.OUT_OF_MEMORY if getattr(error, "errno", None) == 12 else Outcome.UNDECODABLE
    return Outcome.DONE


def _write_facts(job: VideoJob, shared: int) -> None:
    file = FileOf(shared, job.file_bytes)
    found = facts_of_webp(file, job) if job.container == "webp" else facts_of(file, job)
    os.pwrite(shared, found.packed(), 0)


def _write_frames(job: VideoJob, shared: int) -> None:
    file = FileOf(shared, job.file_bytes)
    wanted = unpacked_numbers(os.pread(shared, job.sent_bytes - job.file_bytes, job.file_bytes))
    frames = frames_of_webp(file, job, wanted) if job.container == "webp" else frames_of(file, job, wanted)
    count, at, before, planes = 0, job.sent_bytes + _COUNT_BYTES, None, b""
    for frame in frames:
        if frame is not before:
            planes = resized(frame.transpose(2, 0, 1), job.final_height, job.final_width).tobytes()
            before = frame
        at += os.pwrite(shared, planes, at)
        count += 1
    os.pwrite(shared, count.to_bytes(_COUNT_BYTES, "little"), job.sent_bytes)
