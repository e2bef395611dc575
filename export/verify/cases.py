"""The conversations that a build and its checkpoint are compared on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from export.verify.candidate import Candidate, Shown
from glmserve.model.chat_template import ImagePart, Message, PromptBuilder, VideoPart


@dataclass(frozen=True)
class Case:
    """A conversation to compare: messages as the service takes them, and what they show, in order: still images, and
    two frames for each second of a video."""

    name: str
    messages: tuple[Message, ...]
    images: tuple[Shown, ...] = ()
    thinking: bool = False


def video_cases(prompts: PromptBuilder) -> list[Case]:
    """A video, and one beside an image; none where the checkpoint's template takes no videos."""
    if not prompts.takes_videos:
        return []
    frames = [synthetic_image(120, 90, seed) for seed in range(6)]
    video, image = VideoPart((0.0, 0.4, 1.25)), synthetic_image(90, 333, 3)
    pairs = tuple(zip(frames[::2], frames[1::2], strict=True))
    return [
        Case("video", (Message("user", (video, "What happens?")),), pairs),
        Case("image and video", (Message("user", (ImagePart(), video, "Is it there?")),), (image, *pairs)),
    ]


def standard_cases() -> list[Case]:
    """Text only, one image, a non-square one, two images, a second turn, thinking, Chinese."""
    square, wide, tall = synthetic_image(224, 224, 1), synthetic_image(500, 180, 2), synthetic_image(90, 333, 3)
    one = ImagePart()
    return [
        Case("text only", (Message("user", ("Hello, who are you?",)),)),
        Case("one image", (Message("user", (one, "What is in this picture?")),), (square,)),
        Case("non-square image", (Message("user", (one, "How many shapes?")),), (wide,)),
        Case("two images", (Message("user", (one, one, "Which one is red?")),), (tall, square)),
        Case(
            "second turn",
            (
                Message("user", (one, "What colour is the shape?")),
                Message("assistant", ("blue",)),
                Message("user", ("And where is it?",)),
            ),
            (wide,),
        ),
        Case("thinking", (Message("user", (one, "Read the number.")),), (tall,), thinking=True),
        Case("Chinese", (Message("user", (one, "图中有几个三角形？")),), (square,)),
        Case("system", (Message("system", ("Be brief.",)), Message("user", ("你好",)))),
    ]


def synthetic_image(width: int, height: int, seed: int) -> Image.Image:
    """A busy image that depends on nothing but its arguments."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 255, (max(1, height // 12), max(1, width // 12), 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = int(random.integers(0, width)), int(random.integers(0, height))
        colour = tuple(int(c) for c in random.integers(0, 255, 3))
        draw.ellipse((x, y, x + width // 5, y + height // 5), fill=colour)
    return image


def input_ids(candidate: Candidate, case: Case) -> np.ndarray:
    """The case's prompt tokens, images expanded."""
    grids = [candidate.normalised(image)[1] for image in case.images]
    return candidate.prompts.build(list(case.messages), grids, case.thinking)
