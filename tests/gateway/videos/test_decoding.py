"""A video's file becomes the frames that the model's own sampling asks for, whatever holds it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from video_files import KINDS, animated_webp, decoded, scene, video

from gateway.chat.sent_files import file_hash
from gateway.chat.videos.cache import VideoCache, VideoKey
from gateway.chat.videos.decoder import OpenedVideo, VideoLimits
from gateway.deadline import Deadline
from gateway.images.decoder_pool import DecoderPool
from gateway.triton.backend import Cancellation
from glmserve.errors import BadVideo
from glmserve.model.bicubic import resized

LIMITS = VideoLimits(1 << 25, 600, 36_000, 4096 * 2304, 5 * 10**9, 176 << 20, 0.8)
pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with closing(DecoderPool()) as made:
        yield made


def opened(data: bytes, pool: DecoderPool, limits: VideoLimits = LIMITS) -> OpenedVideo:
    return OpenedVideo(data, limits, pool, Deadline.after(30), Cancellation())


def frames_of(data: bytes, pool: DecoderPool, numbers: list[int], height: int, width: int) -> list[np.ndarray]:
    return opened(data, pool).frames(numbers, height, width, Deadline.after(30), Cancellation())


@pytest.mark.parametrize(("container", "codec"), KINDS)
def test_every_kind_gives_its_own_frames(pool: DecoderPool, container: str, codec: str) -> None:
    data = video(container, codec, frames=20)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER, "what writes videos here must not take the machine from others"
    facts = opened(data, pool).facts
    assert (facts.frames, facts.width, facts.height) == (20, 64, 48) and abs(facts.fps - 10) < 0.01
    numbers = [0, 3, 4, 9, 15, 19, 19]
    found, right = frames_of(data, pool, numbers, 56, 84), decoded(data)
    for number, planes in zip(numbers, found, strict=True):
        np.testing.assert_array_equal(planes, resized(right[number].transpose(2, 0, 1), 56, 84))


def test_an_animated_webp_gives_its_own_frames(pool: DecoderPool) -> None:
    facts = opened(animated_webp(8), pool).facts
    assert (facts.frames, facts.fps, facts.width, facts.height) == (8, 10, 64, 48)
    for number, planes in zip([1, 6, 7], frames_of(animated_webp(8), pool, [1, 6, 7], 48, 64), strict=True):
        np.testing.assert_array_equal(planes, scene(number).transpose(2, 0, 1))


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_video_that_lies_on_its_side_is_set_upright(pool: DecoderPool, rotation: int) -> None:
    data = video(frames=4, rotation=rotation, crf="1")
    facts = opened(data, pool).facts
    upright = np.rot90(scene(2), {90: 1, 180: 2, 270: 3}[rotation])
    assert (facts.height, facts.width) == upright.shape[:2]
    (found,) = frames_of(data, pool, [2], *upright.shape[:2])
    assert np.abs(found.astype(int) - upright.transpose(2, 0, 1)).mean() < 12


def test_of_an_uneven_rate_the_average_counts(pool: DecoderPool) -> None:
    instants = (0, 100, 150, 600, 700, 1600, 1700, 1750, 1950, 2000)
    facts = opened(video("matroska", instants=instants), pool).facts
    assert facts.frames == len(instants) and 3 < facts.fps < 6
    assert len(frames_of(video("matroska", instants=instants), pool, [0, 3, 9], 28, 28)) == 3


@pytest.mark.parametrize("fps", [Fraction(24000, 1001), Fraction(30000, 1001), 25, 60, 1])
@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_a_rate_is_read_as_it_was_written(pool: DecoderPool, container: str, fps: Fraction | int) -> None:
    assert opened(video(container, fps=fps, frames=31), pool).facts.fps == pytest.approx(float(fps), rel=1e-3)


def test_sound_is_passed_over(pool: DecoderPool) -> None:
    facts = opened(video(sound=True), pool).facts
    assert facts.streams == 2 and facts.frames == 20


@pytest.mark.parametrize("share", [0.5, 0.8, 0.97])
@pytest.mark.parametrize(
    "kind", [("matroska", "libx264"), ("webm", "libvpx"), ("gif", "gif"), ("fragmented", "libx264")]
)
def test_a_broken_tail_is_read_as_far_as_it_goes(pool: DecoderPool, kind: tuple[str, str], share: float) -> None:
    container, codec = kind
    more = {} if codec == "gif" else {"g": "5"}
    if container == "fragmented":
        container, more["fragmented"] = "mp4", "yes"
    whole = video(container, codec, frames=40, **more)
    broken = whole[: int(len(whole) * share)]
    facts = opened(broken, pool).facts
    assert 5 <= facts.frames <= 40
    found = frames_of(broken, pool, [0, facts.frames // 2, facts.frames - 1], 28, 56)
    assert len(found) == 3 and not np.array_equal(found[0], found[1])


def test_a_hole_in_the_middle_costs_the_frames_that_lay_there(pool: DecoderPool) -> None:
    data = bytearray(video(frames=40, g="5", crf="10"))
    at = data.index(b"mdat") + len(data) // 3
    data[at : at + 300] = b"\xff" * 300
    found = frames_of(bytes(data), pool, list(range(0, 40, 4)), 28, 56)
    assert len(found) == 10


@pytest.mark.parametrize("made", [lambda: video("gif", "gif", frames=9), lambda: animated_webp(9), video])
def test_too_many_frames_are_named_whatever_holds_them(pool: DecoderPool, made: Callable[[], bytes]) -> None:
    with pytest.raises(BadVideo, match="more than 8 frames"):
        opened(made(), pool, replace(LIMITS, max_frames=8))


@pytest.mark.parametrize(("container", "words"), [("mp4", "MP4 or MOV"), ("matroska", "WebM or MKV")])
def test_a_broken_file_is_not_asked_to_be_what_it_is(pool: DecoderPool, container: str, words: str) -> None:
    whole = video(container, "libx264")
    with pytest.raises(BadVideo, match=f"begins as {words}, and is damaged, cut off"):
        opened(whole[: len(whole) // 8], pool)


REFUSED = {
    "text": (b"hello, this is no video at all", "must be MP4"),
    "empty boxes": (b"\0\0\0\x18ftypisom" + bytes(400), "cannot be decoded"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(60), "cannot be decoded"),
    "a sound": (b"ID3" + bytes(100), "a sound file"),
    "an old codec": (video("matroska", "mpeg4"), "mpeg4, which is not read"),
    "a file that breaks off at once": (video("mov", "libx264")[:60], "cannot be decoded"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_files_are_refused_with_what_is_accepted(pool: DecoderPool, name: str) -> None:
    data, words = REFUSED[name]
    with pytest.raises(BadVideo, match=words) as raised:
        opened(data, pool)
    assert raised.value.field == "video" and "H.264" in raised.value.message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_s": 1.0}, r"lasts 2 s; at most 1 s"),
        ({"max_frames": 19}, "more than 19 frames"),
        ({"max_frame_pixels": 3000}, "64 x 48 pixels; at most 3000"),
        ({"max_pixels": 30_000}, "at most 9 frames of this size"),
    ],
)
def test_each_bound_is_named(pool: DecoderPool, change: dict[str, float], words: str) -> None:
    with pytest.raises(BadVideo, match=words):
        opened(video(), pool, replace(LIMITS, **change))  # type: ignore[arg-type]


def test_frames_of_the_same_video_are_decoded_once_within_a_scope(pool: DecoderPool) -> None:
    cache, data = VideoCache(1 << 20), video(frames=12)

    def ask(scope: tuple[str, str], height: int = 28) -> list[np.ndarray]:
        key = VideoKey.of(file_hash(data), scope)
        made = OpenedVideo(data, LIMITS, pool, Deadline.after(30), Cancellation(), "video", cache, key)
        assert cache.facts(key) is made.facts
        return made.frames([0, 4, 4], height, 28, Deadline.after(30), Cancellation())

    first, again = ask(("a", "")), ask(("a", ""))
    assert first[0] is again[0] and first[1] is first[2]
    for other in (ask(("b", "")), ask(("a", "salt"))):
        assert other[0] is not first[0]
        np.testing.assert_array_equal(other[0], first[0])
    assert ask(("a", ""), 56)[0].shape == (3, 56, 28)


def test_the_least_recently_used_frames_go_first() -> None:
    cache, frame = VideoCache(3 * 12), np.zeros((3, 2, 2), np.uint8)
    keys = [VideoKey(bytes([number])) for number in range(4)]
    for key in keys[:3]:
        cache.keep(key, (frame.copy(),))
    assert cache.get(keys[0]) is not None
    cache.keep(keys[3], (frame.copy(),))
    assert [cache.get(key) is not None for key in keys] == [True, False, True, True]
    cache.keep(keys[1], (np.zeros((3, 9, 9), np.uint8),))
    assert cache.get(keys[1]) is None
