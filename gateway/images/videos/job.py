"""What a decoding process is asked about one video, and what it finds, as both sides write it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Literal

from gateway.images.job import JOB_BYTES

Task = Literal["FACTS", "FRAMES"]
Container = Literal["mov", "matroska", "gif", "webp"]
"""As FFmpeg calls the families mp4/mov, mkv/webm, GIF and animated WebP."""

_PACKED = struct.Struct("<8s12sQ4IQdQ")
_NUMBER = struct.Struct("<I")
_FACTS = struct.Struct("<12s32s3QdQ")
FACTS_BYTES = _FACTS.size
assert _PACKED.size <= JOB_BYTES


@dataclass(frozen=True)
class VideoJob:
    """One file and what is wanted of it. The file lies in the shared memory, the wanted frames' numbers behind it.

    FACTS writes `Facts` over the file; FRAMES writes, behind the numbers, how many frames there were and the planes
    u8 [3, height, width] of each of them.
    """

    task: Task
    container: Container
    file_bytes: int
    wanted: int = 0  # how many frames
    final_width: int = 0  # what the model reads
    final_height: int = 0
    most_packets: int = 0
    most_pixels: int = 0  # of one frame, by its own size
    cpu_s: float = 1.0
    memory_bytes: int = 0

    @property
    def sent_bytes(self) -> int:
        """Bytes of the file and the numbers."""
        return self.file_bytes + self.wanted * _NUMBER.size

    @property
    def frame_bytes(self) -> int:
        return 3 * self.final_width * self.final_height

    def packed(self) -> bytes:
        return _PACKED.pack(
            self.task.encode(),
            self.container.encode(),
            self.file_bytes,
            self.wanted,
            self.final_width,
            self.final_height,
            self.most_packets,
            self.most_pixels,
            self.cpu_s,
            self.memory_bytes,
        ).ljust(JOB_BYTES, b"\0")

    @staticmethod
    def unpacked(data: bytes) -> VideoJob | None:
        """None for the job of an image."""
        task, container, *numbers = _PACKED.unpack_from(data)
        name = task.rstrip(b"\0").decode()
        if name not in ("FACTS", "FRAMES"):
            return None
        return VideoJob(name, container.rstrip(b"\0").decode(), *numbers)


@dataclass(frozen=True)
class Facts:
    """What a video's file says of itself and holds; sides in pixels, upright.

    Of more frames than the job's `most_packets`, one beyond them is counted.

    `frames` and `fps` are of the frames that are really there. `codec` and `container` are FFmpeg's names.
    """

    container: str
    codec: str
    width: int
    height: int
    frames: int
    fps: float
    streams: int

    def packed(self) -> bytes:
        container, codec, *numbers = astuple(self)
        return _FACTS.pack(container.encode(), codec.encode(), *numbers)

    @staticmethod
    def unpacked(data: bytes) -> Facts:
        container, codec, *numbers = _FACTS.unpack_from(data)
        return Facts(container.rstrip(b"\0").decode(), codec.rstrip(b"\0").decode("utf-8", "replace"), *numbers)


def packed_numbers(numbers: Sequence[int]) -> bytes:
    """The numbers of the wanted frames as they stand behind the file."""
    return struct.pack(f"<{len(numbers)}I", *numbers)


def unpacked_numbers(data: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(data) // _NUMBER.size}I", data))
