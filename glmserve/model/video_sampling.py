"""Which frames of a video the model sees, and when each pair of them is: transformers' `Glm46VVideoProcessor`'s rules.

A still image stands for two equal frames; of a video, two frames that follow one another are seen together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glmserve.limits import MAX_VIDEO_FRAMES

FRAMES_A_MOMENT = 2
"""Frames that are seen together."""
DEFAULT_FPS = 24.0
"""The rate of frames that came without times."""
_MOST_SECONDS = 2400
_RATES = ((30, 3.0), (300, 1.0), (2400, 0.5))
"""Moments a second of a video that lasts at most so many seconds."""


@dataclass(frozen=True)
class VideoFacts:
    """What sampling needs to know of a video: frames in all, and frames a second on average."""

    frames: int
    fps: float

    @property
    def seconds(self) -> float:
        return self.frames / self.fps


@dataclass(frozen=True)
class FrameSampling:
    """What a request asks instead of the model's own rule: frames a second, or so many frames spread evenly."""

    fps: float | None = None
    frames: int | None = None


AS_THE_MODEL = FrameSampling()


def sampled_frames(facts: VideoFacts, asked: FrameSampling = AS_THE_MODEL) -> list[int]:
    """The numbers of the frames to show, counted from 0 and in order; an even number of them, the last maybe twice."""
    if asked.frames is not None:
        chosen = _spread(0, facts.frames - 1, min(asked.frames, MAX_VIDEO_FRAMES))
    elif asked.fps is not None:
        chosen = _spread(0, facts.frames - 1, max(1, min(int(facts.seconds * asked.fps), MAX_VIDEO_FRAMES)))
    else:
        chosen = _by_the_second(facts)
    unique = list(dict.fromkeys(chosen))
    return unique + unique[-1:] * (len(unique) % FRAMES_A_MOMENT)


def seconds_of(frame_numbers: Sequence[int], fps: float) -> tuple[float, ...]:
    """The second at which each of these frames is shown."""
    return tuple(number / fps for number in frame_numbers)


def _by_the_second(facts: VideoFacts) -> list[int]:
    seconds = facts.seconds
    lasting = min(seconds, _MOST_SECONDS)
    rate = next(rate for most, rate in _RATES if lasting <= most)
    wanted = max(1, min(int(lasting * rate * FRAMES_A_MOMENT), MAX_VIDEO_FRAMES))  # one where transformers finds none
    chosen: list[int] = []
    if facts.frames >= wanted:
        chosen = _in_steps(facts, 1 / (FRAMES_A_MOMENT * rate))
    if len(chosen) == wanted:
        return chosen
    if facts.frames < wanted or len(chosen) > wanted:
        return _spread(0, facts.frames - 1, wanted)
    return _spread(chosen[0], chosen[-1], wanted)


def _in_steps(facts: VideoFacts, step: float) -> list[int]:
    """The first frame at or after each step, until the video's last whole second."""
    gap, last_second = 1 / facts.fps, int(facts.seconds)
    chosen, second = list[int](), 0.0
    for number in range(facts.frames):
        if number * gap >= second:
            second += step
            chosen.append(number)
            if second >= last_second:
                break
    return chosen


def _spread(first: int, last: int, count: int) -> list[int]:
    return [int(number) for number in np.linspace(first, last, count, dtype=int)]
