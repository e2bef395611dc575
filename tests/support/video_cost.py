"""Opens a video and decodes the frames that the model sees, and tells what that took."""

from __future__ import annotations

from decoding_cost import WAIT_S, Cost, measured
from video_files import video

from gateway.chat.videos.decoder import OpenedVideo, VideoLimits
from gateway.deadline import Deadline
from gateway.images.decoder_pool import DecoderPool
from gateway.triton.backend import Cancellation
from glmserve.model.config import ImageRules
from glmserve.model.video_frames import video_size
from glmserve.model.video_sampling import sampled_frames

LIMITS = VideoLimits(1 << 25, 600, 36_000, 4096 * 2304, 5 * 10**9, 176 << 20, 0.8)
RULES = ImageRules(14, 2, 2, 12_544, 20_000_000, (0.5,) * 3, (0.5,) * 3)


def cost_of_video(data: bytes, limits: VideoLimits = LIMITS) -> Cost:
    return measured(lambda pool: _read(pool, video(), LIMITS), lambda pool, cost: _read(pool, data, limits, cost))


def _read(pool: DecoderPool, data: bytes, limits: VideoLimits, cost: Cost | None = None) -> None:
    opened = OpenedVideo(data, limits, pool, Deadline.after(WAIT_S), Cancellation())
    if cost is not None:
        cost.pixels = opened.facts.width * opened.facts.height * opened.facts.frames
    numbers = sampled_frames(opened.rate)
    size = video_size(len(numbers), opened.facts.height, opened.facts.width, RULES)
    opened.frames(numbers, *size, Deadline.after(WAIT_S), Cancellation())
