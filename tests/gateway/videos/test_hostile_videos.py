"""Videos built to cost more than they show stay within the bounds of hostile pictures, and end when nobody waits."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace

import pytest
from decoding_cost import decoder_pids
from eventually import eventually
from video_cost import LIMITS, cost_of_video
from video_files import animated_webp, video

import gateway.chat.videos.decoder
from gateway.chat.videos.decoder import OpenedVideo
from gateway.deadline import Deadline
from gateway.images.decoder_pool import DecoderPool
from gateway.triton.backend import Cancellation
from glmserve.errors import BadVideo, Cancelled, DeadlineExceeded

pytestmark = pytest.mark.process
MEGA, MIB = 1_000_000, 1 << 20
NOISE_S = 0.5


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def with_counts(kind: bytes, count: int) -> bytes:
    """An MP4 one of whose tables says that it has so many entries."""
    data = bytearray(video(frames=10))
    at = data.index(kind)
    place = at + (12 if kind == b"stsz" else 8)
    if kind == b"stsz":
        data[at + 8 : at + 12] = struct.pack(">I", 1)  # of one size each, so that no table need be there
    data[place : place + 4] = struct.pack(">I", count)
    return bytes(data)


def of_garbage(container: str, codec: str) -> bytes:
    data = bytearray(
        video(container, codec, frames=200, width=320, height=240, **({} if codec == "gif" else {"g": "9"}))
    )
    for at in range(len(data) // 3, len(data) - 600, 61):
        data[at] ^= 0x5A
    return bytes(data)


def nested(depth: int) -> bytes:
    inner = b""
    for _ in range(depth):
        inner = box(b"moov", inner)
    return box(b"ftyp", b"isom\0\0\0\0isom") + inner


def with_size(kind: str) -> bytes:
    """A file whose frames are said to be as large as can be."""
    if kind == "gif":
        data = bytearray(video("gif", "gif"))
        data[6:10] = b"\xff\xff\xff\xff"
        return bytes(data)
    data = bytearray(video())
    at = data.index(b"avc1") + 4 + 24
    data[at : at + 4] = b"\x3f\xff\x3f\xff"
    return bytes(data)


HOSTILE: dict[str, Callable[[], bytes]] = {
    "samples without end": lambda: with_counts(b"stsz", 0xFFFFFFF0),
    "100 million samples": lambda: with_counts(b"stsz", 100 * MEGA),
    "times without end": lambda: with_counts(b"stts", 0xFFFFFFF),
    "chunks without end": lambda: with_counts(b"stsc", 0xFFFFFFF),
    "offsets without end": lambda: with_counts(b"stco", 0xFFFFFFF),
    "boxes in boxes": lambda: nested(3000),
    "a million empty boxes": lambda: box(b"ftyp", b"isom\0\0\0\0isom") + box(b"free", b"") * MEGA,
    "tracks without end": lambda: (
        box(b"ftyp", b"isom\0\0\0\0isom")
        + box(b"moov", box(b"trak", box(b"mdia", box(b"hdlr", bytes(8) + b"vide" + bytes(13)))) * 50_000)
    ),
    "nothing behind a matroska head": lambda: video("matroska")[:400] + bytes(30 * MEGA),
    "noise behind a matroska head": lambda: video("matroska")[:400] + b"\x1aE\xdf\xa3\x01\x42" * (4 * MEGA),
    "nothing behind a gif head": lambda: video("gif", "gif")[:300] + bytes(30 * MEGA),
    "pictures without end in a gif": lambda: video("gif", "gif")[:781] + (b"\x2c" + bytes(8) + b"\0\2\0") * 2 * MEGA,
    "frames without end in a webp": lambda: animated_webp() + (b"ANMF" + struct.pack("<I", 16) + bytes(16)) * MEGA,
    "garbage in h264": lambda: of_garbage("mp4", "libx264"),
    "garbage in hevc": lambda: of_garbage("mp4", "libx265"),
    "garbage in vp8": lambda: of_garbage("webm", "libvpx"),
    "garbage in vp9": lambda: of_garbage("webm", "libvpx-vp9"),
    "garbage in av1": lambda: of_garbage("mp4", "libsvtav1"),
    "garbage in gif": lambda: of_garbage("gif", "gif"),
    "a gif of four gigapixels": lambda: with_size("gif"),
    "frames larger than they are": lambda: with_size("mp4"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_costs_no_more_than_an_honest_one_and_a_second(name: str) -> None:
    data = HOSTILE[name]()
    cost = cost_of_video(data)
    honest_s = min(cost.pixels, 10**8) * 10e-9 + len(data) * 40e-9
    assert cost.cpu_s <= 1 + honest_s + NOISE_S, f"{cost}"
    assert cost.grown_bytes <= 200 * MIB, f"{cost.grown_bytes >> 20} MiB"


@pytest.mark.parametrize("kind", [("mp4", "libx264"), ("webm", "libvpx-vp9"), ("gif", "gif")])
def test_any_file_cut_or_altered_is_an_answer_or_a_refusal(kind: tuple[str, str]) -> None:
    whole = video(*kind, frames=8)
    with closing(DecoderPool()) as pool:
        for number in range(60):
            data = bytearray(whole[: len(whole) - number * 7 % len(whole)])
            for at in range(number, len(data), 97 + number):
                data[at] = (data[at] * 31 + number) % 256
            _read(pool, bytes(data))


def _read(pool: DecoderPool, data: bytes) -> None:
    with suppress(BadVideo):
        made = OpenedVideo(data, LIMITS, pool, Deadline.after(20), Cancellation())
        made.frames([0, made.facts.frames - 1], 28, 28, Deadline.after(20), Cancellation())


def _long() -> bytes:
    return video(frames=120, width=960, height=540, preset="ultrafast", crf="30")


@pytest.mark.alone
def test_leaving_frees_the_process_within_half_a_second() -> None:
    cancellation, left, others = Cancellation(), [0.0], set(decoder_pids())
    with closing(DecoderPool()) as pool:
        made = OpenedVideo(_long(), LIMITS, pool, Deadline.after(30), cancellation)

        def leave() -> None:
            time.sleep(0.2)
            left[0] = time.monotonic()
            cancellation.cancel()

        threading.Thread(target=leave).start()
        with pytest.raises(Cancelled):
            made.frames(list(range(120)), 1064, 1904, Deadline.after(30), cancellation)
        assert time.monotonic() - left[0] < 0.5
        assert eventually(lambda: set(decoder_pids()) <= others)


@pytest.mark.alone
def test_a_deadline_frees_the_process_within_half_a_second() -> None:
    others = set(decoder_pids())
    with closing(DecoderPool()) as pool:
        made = OpenedVideo(_long(), LIMITS, pool, Deadline.after(30), Cancellation())
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            made.frames(list(range(120)), 1064, 1904, Deadline.after(0.3), Cancellation())
        assert time.monotonic() - began < 0.8
        assert eventually(lambda: set(decoder_pids()) <= others)


def test_one_that_takes_too_long_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for grant in ("_PIXEL_NS", "_SHOWN_PIXEL_NS", "_BYTE_NS"):
        monkeypatch.setattr(gateway.chat.videos.decoder, grant, 0)
    cost = cost_of_video(_long(), replace(LIMITS, cpu_s=0.6))
    assert cost.refusal is not None and "more than 0.3 s of processor time" in cost.refusal


def test_one_that_takes_too_much_memory_is_told_so() -> None:
    cost = cost_of_video(_long(), replace(LIMITS, memory_bytes=2 * MIB))
    assert cost.refusal is not None and ("MiB of memory" in cost.refusal or "cannot be decoded" in cost.refusal)
