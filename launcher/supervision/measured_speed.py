"""What the engine measured of this machine at its start, and whether answers can end within the gateway's deadline."""

from __future__ import annotations

import re
from dataclasses import dataclass

_GAUGE = re.compile(r"^glm_measured_(step|prompt_token|image_patch)_seconds(?:\{[^}]*\})? (\S+)$", re.M)
_PHOTO_PATCHES, _PHOTO_TOKENS = 1564, 391  # of 640 x 480 pixels, as the model family's processor cuts them
_QUESTION_TOKENS = 20
_ANSWER_TOKENS = 100


@dataclass(frozen=True)
class MeasuredSpeed:
    """Seconds of a decode step, of a prompt's token, and of an image's patch."""

    step_s: float
    prompt_token_s: float
    image_patch_s: float

    @staticmethod
    def read(metrics: str) -> MeasuredSpeed | None:
        """From a page of Triton's metrics; None where the engine has measured nothing, as on a GPU."""
        found = {name: float(value) for name, value in _GAUGE.findall(metrics)}
        if not all(found.get(name) for name in ("step", "prompt_token", "image_patch")):
            return None
        return MeasuredSpeed(found["step"], found["prompt_token"], found["image_patch"])

    @property
    def photo_s(self) -> float:
        """Until the first token of an answer about a photo of 640 x 480 pixels, when nobody else asks."""
        prompt_s = (_PHOTO_TOKENS + _QUESTION_TOKENS) * self.prompt_token_s
        return _PHOTO_PATCHES * self.image_patch_s + prompt_s

    def warning(self, deadline_s: float, deadline_setting: str) -> str | None:
        """Says that ordinary answers take longer than the deadline, and what helps; None where they do not."""
        answer_s = self.photo_s + _ANSWER_TOKENS * self.step_s
        if answer_s <= deadline_s:
            return None
        return (
            f"This machine is slow for this build: a photo of 640x480 takes about {self.photo_s:.0f} s until the first "
            f"token, and each further token {self.step_s:.2g} s, so an answer of {_ANSWER_TOKENS} tokens takes about "
            f"{answer_s:.0f} s. {deadline_setting} allows {deadline_s:g} s; then a request gets a 504. Set "
            f"{deadline_setting}={_rounded_up(2 * answer_s)}, or export with fewer bits (PRECISION=int4)."
        )


def _rounded_up(seconds: float) -> int:
    """To whole minutes."""
    return 60 * (int(seconds) // 60 + 1)
