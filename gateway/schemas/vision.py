"""What a client may send to /v1/chat/vision, and the sentence that answers each mistake."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError

from gateway.schemas.common import FLAG, Text, read_json, refusal, with_parameters
from gateway.schemas.conversation import Conversation, SentImage, Shown, Turn
from gateway.schemas.mistakes import SOMETHING
from gateway.schemas.structured_output import StructuredFields
from gateway.schemas.token_fields import TokenFields
from gateway.schemas.unknown_fields import check_declined, unknown_fields
from gateway.schemas.videos import Frames, VideoObject, video_of
from glmserve.errors import InvalidInput
from glmserve.limits import MAX_IMAGES
from glmserve.sampling_parameters import PARAMETERS

_PROMPTS = ("prompt", "question", "text")
_TEXT = "a string that is not empty"
_Said = Annotated[str, StringConstraints(pattern=SOMETHING)]


@dataclass(frozen=True)
class Asked:
    """A request to /v1/chat/vision: what is asked, of which model, and whether the answer is wanted in pieces."""

    conversation: Conversation
    is_stream: bool
    model: str | None = None


@with_parameters({alias: parameter for parameter in PARAMETERS for alias in parameter.vision_aliases})
class VisionBody(StructuredFields, TokenFields):
    """The JSON body of a request to /v1/chat/vision."""

    image: Text | None = Field(default=None, description="an image as a base64 string, or a data:image/...;base64, URL")
    images: list[Text] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_IMAGES,
        fail_fast=True,
        description=f"a list of 1 to {MAX_IMAGES} images, each a base64 string or a data:image/...;base64, URL",
    )
    video: Text | Frames | VideoObject | None = Field(
        default=None,
        description="a video as a base64 string, a data:video/...;base64, URL, or an object with url, or with frames "
        "and timestamps",
    )
    prompt: _Said | None = Field(default=None, description=_TEXT)
    question: _Said | None = Field(default=None, description=_TEXT)
    text: _Said | None = Field(default=None, description=_TEXT)
    system: _Said | None = Field(default=None, description=_TEXT)
    stream: bool | None = Field(default=None, description=FLAG)
    n: Literal[1] | None = Field(default=None, description="1; /v1/chat/completions gives several answers")
    model: Text | None = Field(default=None, description="the name of a model, as GET /v1/models lists it")

    def asked(self, files: tuple[Shown, ...] = ()) -> Asked:
        """Raises InvalidInput when the prompt is missing, or anything to look at; `files` were sent beside the body."""
        images: list[Shown] = [SentImage(self.image)] if self.image else []
        images += [SentImage(data, f"images[{i}]") for i, data in enumerate(self.images or ())]
        images += [video_of(self.video, "video")] if self.video else []
        images += files
        if not images:
            raise _missing("image")
        prompt = self.prompt or self.question or self.text
        if prompt is None:
            raise _missing("prompt")
        system = (Turn("system", (self.system,)),) if self.system else ()
        sampling = self.sampling()
        conversation = Conversation(
            turns=(*system, Turn("user", (*images, prompt))),
            sampling=sampling,
            stop=self.stops(),
            thinking=bool(self.thinks()),
            grammar=self.answer_rules(),
            partial_on_timeout=bool(self.partial_on_timeout),
            **self.token_options(sampling),
        )
        return Asked(conversation, bool(self.stream), self.model)


def parse_vision(body: bytes) -> Asked:
    """The request in a JSON body; raises InvalidInput with a sentence that names the field at fault."""
    return vision_of(read_json(body, "image and prompt"))


def vision_of(document: dict[str, Any], files: tuple[Shown, ...] = ()) -> Asked:
    """The request in the fields of a body."""
    try:
        read = VisionBody.model_validate(document)
    except ValidationError as error:
        raise refusal(error, document, VisionBody) from None
    check_declined(document, read)
    asked = read.asked(files)
    return replace(asked, conversation=replace(asked.conversation, unknown=unknown_fields(document, read)))


def _missing(field: str) -> InvalidInput:
    wanted = f"The field {field} must be {VisionBody.model_fields[field].description}."
    if field == "image":
        wanted += (
            f" Several are sent as images, {VisionBody.model_fields['images'].description}. A video is sent as video."
        )
    return InvalidInput(f"The request has no {field}. {wanted}", field)
