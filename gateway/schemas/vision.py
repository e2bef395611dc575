"""What a client may send to /v1/chat/vision, and the sentence that answers each mistake."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError

from gateway.schemas.common import FLAG, AnswerFields, Text, read_json, refusal, with_parameters
from gateway.schemas.conversation import Conversation, SentImage, Turn
from gateway.schemas.structured_output import StructuredFields
from glmserve.errors import InvalidInput
from glmserve.limits import MAX_IMAGES
from glmserve.sampling_parameters import PARAMETERS

_PROMPTS = ("prompt", "question", "text")
_TEXT = "a string that is not empty"
_Said = Annotated[str, StringConstraints(pattern=r"\S")]


@dataclass(frozen=True)
class Asked:
    """A request to /v1/chat/vision: what is asked, and whether the answer is wanted in pieces."""

    conversation: Conversation
    is_stream: bool


@with_parameters({alias: parameter for parameter in PARAMETERS for alias in parameter.vision_aliases})
class VisionBody(StructuredFields, AnswerFields):
    """The JSON body of a request to /v1/chat/vision."""

    image: Text | None = Field(
        default=None, description="a picture as a base64 string, or a data:image/...;base64, URL"
    )
    images: list[Text] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_IMAGES,
        description=f"a list of 1 to {MAX_IMAGES} pictures, each a base64 string or a data:image/...;base64, URL",
    )
    prompt: _Said | None = Field(default=None, description=_TEXT)
    question: _Said | None = Field(default=None, description=_TEXT)
    text: _Said | None = Field(default=None, description=_TEXT)
    system: _Said | None = Field(default=None, description=_TEXT)
    stream: bool | None = Field(default=None, description=FLAG)

    def asked(self, files: tuple[SentImage, ...] = ()) -> Asked:
        """Raises InvalidInput when the picture or the prompt is missing; `files` are pictures sent beside the body."""
        images = [SentImage(self.image)] if self.image else []
        images += [SentImage(data, f"images[{i}]") for i, data in enumerate(self.images or ())]
        images += files
        if not images:
            raise _missing("image")
        prompt = self.prompt or self.question or self.text
        if prompt is None:
            raise _missing("prompt")
        system = (Turn("system", (self.system,)),) if self.system else ()
        conversation = Conversation(
            turns=(*system, Turn("user", (*images, prompt))),
            sampling=self.sampling(),
            stop=self.stops(),
            thinking=bool(self.thinks()),
            grammar=self.answer_rules(),
            partial_on_timeout=bool(self.partial_on_timeout),
        )
        return Asked(conversation, bool(self.stream))


def parse_vision(body: bytes) -> Asked:
    """The request in a JSON body; raises InvalidInput with a sentence that names the field at fault."""
    return vision_of(read_json(body, "image and prompt"))


def vision_of(document: dict[str, Any], files: tuple[SentImage, ...] = ()) -> Asked:
    """The request in the fields of a body."""
    try:
        return VisionBody.model_validate(document).asked(files)
    except ValidationError as error:
        raise refusal(error, document, VisionBody) from None


def _missing(field: str) -> InvalidInput:
    wanted = f"The field {field} must be {VisionBody.model_fields[field].description}."
    if field == "image":
        wanted += f" Several are sent as images, {VisionBody.model_fields['images'].description}."
    return InvalidInput(f"The request has no {field}. {wanted}", field)
