"""Opens the videos of a request, chooses their frames, and makes these fit into the context."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.chat.decoding import Decoding
from gateway.chat.image_decoder import OpenedImage
from gateway.chat.videos.cache import VideoCache, VideoKey
from gateway.chat.videos.decoder import OpenedVideo, VideoLimits
from gateway.chat.videos.shown import FrameList, ShownVideo
from gateway.schemas.conversation import Conversation, SentImage, SentVideo
from gateway.settings import GatewaySettings
from glmserve.errors import BadVideo
from glmserve.model.image_processor import ImageRules
from glmserve.model.video_sampling import AS_THE_MODEL, DEFAULT_FPS, FRAMES_A_MOMENT, sampled_frames, seconds_of


class VideoOpener:
    """Opens videos within the settings' bounds; shared between threads."""

    def __init__(self, settings: GatewaySettings, rules: ImageRules) -> None:
        self._rules = rules  # a request's bounds count all frames of a video
        self._most_side, self._shrinks = settings.max_image_side, settings.large_videos == "downscale"
        self._cache = VideoCache(settings.video_cache_bytes)
        self._limits = VideoLimits(
            settings.max_video_bytes,
            settings.max_video_s,
            settings.max_video_frames,
            settings.max_video_frame_pixels,
            settings.max_video_pixels,
            settings.image_memory_bytes,
            settings.image_cpu_s,
        )

    def of_file(
        self,
        sent: SentVideo,
        data: bytes,
        digest: str,
        conversation: Conversation,
        decoding: Decoding,
        hashes: tuple[str, ...],
    ) -> ShownVideo:
        """Reads what the file holds, whose hash is `digest`, and decodes no frame for the model; raises BadVideo."""
        key = VideoKey.of(digest, (decoding.caller, decoding.salt))
        opened = OpenedVideo(
            data,
            self._limits,
            decoding.decoders,
            decoding.deadline,
            decoding.cancellation,
            sent.field,
            self._cache,
            key,
        )
        sampling = conversation.frames if sent.sampling == AS_THE_MODEL else sent.sampling
        numbers = sampled_frames(opened.rate, sampling)
        video = ShownVideo(
            opened, numbers, seconds_of(numbers, opened.facts.fps), conversation.pixels.within(self._rules), hashes
        )
        if max(video.size) > self._most_side:
            self._bound_sides(video)
        return video

    def _bound_sides(self, video: ShownVideo) -> None:
        if not self._shrinks:
            height, width = video.size
            raise BadVideo(
                f"The video's frames are read at {width} x {height} pixels; their longer side may have at most "
                f"{self._most_side}: send smaller ones, or set max_pixels.",
                video.field,
            )
        video.fit_side(self._most_side)

    def of_frames(
        self,
        sent: SentVideo,
        frames: list[OpenedImage],
        conversation: Conversation,
        decoding: Decoding,
        hashes: tuple[str, ...],
    ) -> ShownVideo:
        """Every image is a frame: none is left out, and an odd one at the end stands for two."""
        numbers = list(range(len(frames)))
        seconds = sent.seconds or seconds_of(numbers, sent.sampling.fps or DEFAULT_FPS)
        if len(numbers) < FRAMES_A_MOMENT:
            numbers, seconds = numbers * FRAMES_A_MOMENT, seconds * FRAMES_A_MOMENT
        return ShownVideo(
            FrameList(frames, decoding.decoders, sent.field),
            numbers,
            seconds,
            conversation.pixels.within(self._rules),
            hashes,
        )


def check_takes_videos(takes_videos: bool, shown: Sequence[SentImage | SentVideo]) -> None:
    """Raises BadVideo, naming the first video, where the model takes none."""
    video = next((sent for sent in shown if isinstance(sent, SentVideo)), None)
    if video is not None and not takes_videos:
        raise BadVideo(
            f"The field {video.field} is a video, and this model's chat template takes none: send single frames as "
            "images.",
            video.field,
        )


def fit_into(videos: Sequence[ShownVideo], tokens_too_many: int, merge_size: int) -> None:
    """Makes the videos' frames smaller, all by the same share, so that they need so many tokens fewer."""
    needed = [video.tokens(merge_size) for video in videos]
    share = max(0.0, 1 - tokens_too_many / sum(needed))
    for video, tokens in zip(videos, needed, strict=True):
        video.fit(max(1, int(tokens * share)))
