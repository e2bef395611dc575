"""The files that a request sends: bytes of a form, base64, or what lies at a URL."""

from __future__ import annotations

import hashlib

from gateway.chat.decoding import Decoding
from gateway.chat.image_fetcher import ImageFetcher, is_url
from gateway.reading.base64_file import SMALL_CHARS, bytes_of_base64, file_of, plain_file
from gateway.reading.dear_reader import DearReader
from gateway.reading.sent_as import A_VIDEO, AN_IMAGE, SentAs
from gateway.schemas.conversation import SentImage, SentVideo
from gateway.settings import GatewaySettings


class SentFiles:
    """Reads files within the settings' bounds; shared between threads."""

    def __init__(self, settings: GatewaySettings, dear: DearReader) -> None:
        self._images = _Reader(settings, dear, AN_IMAGE, settings.max_image_bytes)
        self._videos = _Reader(settings, dear, A_VIDEO, settings.max_video_bytes)

    def read(self, sent: SentImage | SentVideo, decoding: Decoding) -> list[bytes]:
        """The file, or the frames of a video that came as a list; raises BadImage, BadVideo and TooLarge."""
        if isinstance(sent, SentImage):
            return [self._images.read(sent, decoding)]
        if sent.frames:
            return [self._images.read(frame, decoding) for frame in sent.frames]
        return [self._videos.read(sent, decoding)]


class _Reader:
    """Reads files of one kind."""

    def __init__(self, settings: GatewaySettings, dear: DearReader, sent_as: SentAs, most_bytes: int) -> None:
        self._dear, self._sent_as, self._most_bytes = dear, sent_as, most_bytes
        self._fetcher = ImageFetcher(
            settings.image_hosts,
            most_bytes,
            settings.image_fetch_timeout_s,
            private_hosts=settings.image_private_hosts,
            model=settings.model_name,
            sent_as=sent_as,
        )

    def read(self, sent: SentImage | SentVideo, decoding: Decoding) -> bytes:
        if isinstance(sent.data, str):
            return self._of_text(sent.data, sent.field, decoding)
        if len(sent.data) > self._most_bytes:
            raise self._sent_as.too_large(self._most_bytes, sent.field)
        return sent.data

    def _of_text(self, text: str, field: str, decoding: Decoding) -> bytes:
        if is_url(text):
            return self._fetcher.read(text.strip(), field, decoding.deadline.left_s())
        how = self._most_bytes, field, self._sent_as
        if len(text) <= SMALL_CHARS:
            return bytes_of_base64(text, *how)
        plain = plain_file(text, self._most_bytes)
        if plain is not None:
            return plain
        return self._dear.read(decoding.caller, file_of, text, *how, within_s=decoding.deadline.left_s())


def file_hash(data: bytes) -> str:
    """A file's SHA-256, as the audit log has it."""
    return hashlib.sha256(data).hexdigest()
