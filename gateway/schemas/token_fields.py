"""The fields of both chat routes that act on tokens, as vLLM names them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from gateway.schemas.common import FLAG, AnswerFields, Body
from gateway.schemas.conversation import PixelBounds
from gateway.schemas.mistakes import SOMETHING, TOKEN_ID, said, shown
from gateway.schemas.videos import Fps, FrameCount, chosen
from glmserve.errors import InvalidInput
from glmserve.limits import (
    LARGEST_LOGIT_BIAS,
    MAX_ALLOWED_TOKEN_IDS,
    MAX_BAD_WORDS,
    MAX_LOGIT_BIAS,
    MAX_STOP_CHARS,
)
from glmserve.model.output_parser import TextRules
from glmserve.model.video_sampling import AS_THE_MODEL, FrameSampling
from glmserve.sampling_parameters import Sampling

_LARGEST_INT32 = 2**31 - 1
_MOST_SALT_CHARS = 1024
_MOST_TOLD = 5
_IdText = Annotated[str, StringConstraints(pattern=TOKEN_ID)]
_Bias = Annotated[float, Field(ge=-LARGEST_LOGIT_BIAS, le=LARGEST_LOGIT_BIAS)]
_Word = Annotated[str, StringConstraints(pattern=SOMETHING, max_length=MAX_STOP_CHARS)]
_TokenId = Annotated[int, Field(ge=0, le=_LARGEST_INT32)]
_Pixels = Annotated[int, Field(ge=1, le=_LARGEST_INT32)]


def _of_ids(sent: Any) -> Any:
    """Tells of all keys that are no token ids at once: whoever sends words has more than one. Of too many keys none is
    looked at."""
    if isinstance(sent, dict) and len(sent) > MAX_LOGIT_BIAS:
        raise PydanticCustomError("too_long", "too long", {"max_length": MAX_LOGIT_BIAS})
    wrong = [key for key in sent if not re.fullmatch(TOKEN_ID, key)] if isinstance(sent, dict) else []
    if wrong:
        more = f" and {len(wrong) - _MOST_TOLD} more" if len(wrong) > _MOST_TOLD else ""
        raise said(f"must have token ids as keys; these are none: {', '.join(map(shown, wrong[:_MOST_TOLD]))}{more}")
    return sent


class EdgePixels(Body):
    """Bounds as the model family's own image processor names them; both count pixels, not edges."""

    shortest_edge: _Pixels | None = None
    longest_edge: _Pixels | None = None


class VideoSwitches(Body):
    """Which frames of the request's videos are to be seen."""

    fps: Fps | None = None
    num_frames: FrameCount | None = None


class MediaSwitches(Body):
    """What vLLM's clients tell those who open files."""

    video: VideoSwitches | None = None


class ProcessorSwitches(VideoSwitches):
    """What the image processor is told, and the video processor."""

    min_pixels: _Pixels | None = None
    max_pixels: _Pixels | None = None
    size: EdgePixels | None = None


class TokenFields(AnswerFields):
    """What may be said, what it is read as, and how the prompt is made; each as in vLLM."""

    logit_bias: Annotated[dict[_IdText, _Bias], BeforeValidator(_of_ids)] | None = Field(
        default=None,
        max_length=MAX_LOGIT_BIAS,
        description=f"an object of at most {MAX_LOGIT_BIAS} token ids, each with a number from "
        f"{-LARGEST_LOGIT_BIAS:g} to {LARGEST_LOGIT_BIAS:g}",
    )
    bad_words: list[_Word] | None = Field(
        default=None,
        max_length=MAX_BAD_WORDS,
        fail_fast=True,
        description=f"a list of at most {MAX_BAD_WORDS} texts of 1 to {MAX_STOP_CHARS} characters",
    )
    allowed_token_ids: list[_TokenId] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_ALLOWED_TOKEN_IDS,
        fail_fast=True,
        description=f"a list of 1 to {MAX_ALLOWED_TOKEN_IDS} token ids",
    )
    include_stop_str_in_output: bool | None = Field(default=None, description=FLAG)
    skip_special_tokens: bool | None = Field(default=None, description=FLAG)
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, le=_LARGEST_INT32)] | None = Field(
        default=None, description="a whole number of at least 1, or -1 for as many tokens as leave room for the answer"
    )
    truncation_side: Literal["left", "right"] | None = Field(default=None, description='"left" or "right"')
    mm_processor_kwargs: ProcessorSwitches | None = Field(
        default=None,
        description='{"min_pixels": ..., "max_pixels": ...} or {"size": {"shortest_edge": ..., "longest_edge": ...}}; '
        'of videos also {"fps": ...} or {"num_frames": ...}',
    )
    media_io_kwargs: MediaSwitches | None = Field(
        default=None, description='{"video": {"fps": ...}} or {"video": {"num_frames": ...}}'
    )
    cache_salt: Annotated[str, StringConstraints(max_length=_MOST_SALT_CHARS)] | None = Field(
        default=None, description=f"a string of 1 to {_MOST_SALT_CHARS} characters"
    )

    def sampling(self) -> Sampling:
        sampling = super().sampling()
        if sampling.min_tokens > sampling.max_tokens:
            raise InvalidInput(
                f"The field min_tokens is {sampling.min_tokens}, and max_tokens is {sampling.max_tokens}: the fewest "
                "tokens may not be more than the most.",
                "min_tokens",
            )
        if self.logit_bias is None and self.allowed_token_ids is None:
            return sampling
        bias = {int(token): value for token, value in (self.logit_bias or {}).items()}
        return replace(
            sampling,
            logit_bias=tuple(bias.items()),
            allowed_token_ids=tuple(dict.fromkeys(self.allowed_token_ids or ())),
        )

    def token_options(self, sampling: Sampling) -> dict[str, Any]:
        """The fields of a `Conversation` that these become."""
        if self.truncate_prompt_tokens == 0:
            wanted = type(self).model_fields["truncate_prompt_tokens"].description
            raise InvalidInput(f"The field truncate_prompt_tokens must be {wanted}.", "truncate_prompt_tokens")
        return {
            "rules": TextRules(
                includes_stop=bool(self.include_stop_str_in_output),
                shows_control_tokens=self.skip_special_tokens is False,
                min_tokens=sampling.min_tokens,
            ),
            "bad_words": tuple(self.bad_words or ()),
            "truncated_to": self.truncate_prompt_tokens,
            "keeps_beginning": self.truncation_side == "right",
            "pixels": self._pixels(),
            "frames": self._frames(),
            "cache_salt": self.cache_salt or "",
        }

    def _frames(self) -> FrameSampling:
        given = {
            "mm_processor_kwargs": self.mm_processor_kwargs,
            "media_io_kwargs": self.media_io_kwargs and self.media_io_kwargs.video,
        }
        asked = {name: chosen(each.fps, each.num_frames, name) for name, each in given.items() if each}
        return next((each for each in asked.values() if each != AS_THE_MODEL), AS_THE_MODEL)

    def _pixels(self) -> PixelBounds:
        switches = self.mm_processor_kwargs or ProcessorSwitches()
        size = switches.size or EdgePixels()
        fewest, most = switches.min_pixels or size.shortest_edge, switches.max_pixels or size.longest_edge
        if fewest is not None and most is not None and fewest > most:
            raise InvalidInput(
                f"The field mm_processor_kwargs asks for at least {fewest} and at most {most} pixels.",
                "mm_processor_kwargs",
            )
        return PixelBounds(fewest, most)
