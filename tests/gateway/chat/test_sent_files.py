"""A file that cannot be read is refused as what it was sent as, in the field that the request sent it in."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.chat.decoding import Decoding
from gateway.chat.sent_files import SentFiles
from gateway.deadline import Deadline
from gateway.images.decoder_pool import DecoderPool
from gateway.reading.dear_reader import DearReader
from gateway.schemas.conversation import SentImage, SentVideo
from gateway.settings import GatewaySettings
from gateway.triton.backend import Cancellation
from glmserve.errors import BadImage, BadVideo, InvalidInput, TooLarge

FIELD = "the image of a video"
SENT = {
    "too many bytes of a form": b"x" * 2000,
    "too much base64": "A" * 4000,
    "too many escapes": "data:,%20" + "%41" * 2000,
    "no data": "data:x/y;base64",
    "no base64": "!!!!",
    "dear, and no base64": " \n" * 150_000 + "!",
    "no text of ASCII": "\u00e4" * 8,
    "half an escape": "data:x/y,%4",
    "nothing": "data:x/y;base64,",
    "a host that is not listed": "https://elsewhere.example/it",
    "no URL": "https://[/it",
}


@pytest.mark.parametrize("kind", [SentImage, SentVideo])
@pytest.mark.parametrize("data", SENT.values(), ids=SENT)
def test_a_refusal_speaks_of_what_was_sent(
    build: Path, dear_reader: DearReader, decoders: DecoderPool, kind: type[SentImage | SentVideo], data: str | bytes
) -> None:
    settings = GatewaySettings(build=build, max_image_bytes=1024, max_video_bytes=1024, image_hosts=("a.example",))
    ours, other, error = ("image", "video", BadImage) if kind is SentImage else ("video", "image", BadVideo)
    with pytest.raises(InvalidInput) as caught:
        SentFiles(settings, dear_reader).read(kind(data, FIELD), _decoding(decoders))
    said = caught.value.message
    assert caught.value.field == FIELD and isinstance(caught.value, error | TooLarge)
    assert FIELD in said or f"The {ours} holds" in said
    assert other not in said.replace(FIELD, ""), said


def test_a_service_that_fetches_nothing_says_how_to_send_it(
    settings: GatewaySettings, dear_reader: DearReader, decoders: DecoderPool
) -> None:
    for sent, name in ((SentImage("https://a.example/it", FIELD), "image"), (SentVideo("ftp://a/it", FIELD), "video")):
        with pytest.raises(InvalidInput, match=rf"^The field {FIELD} .* no {name}s: send the {name} .* data:{name}/"):
            SentFiles(settings, dear_reader).read(sent, _decoding(decoders))


def _decoding(decoders: DecoderPool) -> Decoding:
    return Decoding(decoders, Deadline.after(60), Cancellation())
