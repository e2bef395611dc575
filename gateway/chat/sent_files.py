"""The files that a request sends: bytes of a form, base64, or what lies at a URL."""

from __future__ import annotations

import hashlib

from gateway.chat.image_decoder import bytes_of_base64, file_of
from gateway.chat.image_fetcher import ImageFetcher, is_url
from gateway.chat.videos.shown import Decoding
from gateway.reading.dear import is_dear_text
from gateway.reading.dear_reader import DearReader
from gateway.schemas.conversation import SentImage, SentVideo
from gateway.settings import GatewaySettings
from glmserve.errors import BadImage, BadVideo, TooLarge


class SentFiles:
    """Reads files within the settings' bounds; shared between threads."""

    def __init__(self, settings: GatewaySettings, dear: DearReader) -> None:
        self._settings, self._dear = settings, dear
        self._images = self._fetcher(settings.max_image_bytes, "image/*")
        self._films = self._fetcher(settings.max_video_bytes, "video/*, image/gif, image/webp")

    def read(self, sent: SentImage | SentVideo, decoding: Decoding) -> list[bytes]:
        """The file, or the frames of a video that came as a list; raises BadImage, BadVideo and TooLarge."""
        if isinstance(sent, SentImage):
            return [self._read(sent, self._images, self._settings.max_image_bytes, decoding)]
        if sent.frames:
            return [file for frame in sent.frames for file in self.read(frame, decoding)]
        try:
            return [self._read(sent, self._films, self._settings.max_video_bytes, decoding)]
        except TooLarge as error:
            raise TooLarge(_of_video(error.message), error.field) from error
        except BadImage as error:
            raise BadVideo(_of_video(error.message), error.field) from error

    def _read(self, sent: SentImage | SentVideo, urls: ImageFetcher, most: int, decoding: Decoding) -> bytes:
        if isinstance(sent.data, str):
            if is_url(sent.data):
                return urls.read(sent.data.strip(), sent.field, decoding.deadline.left_s())
            if is_dear_text(sent.data):
                left_s = decoding.deadline.left_s()
                return self._dear.read(decoding.caller, file_of, sent.data, most, sent.field, within_s=left_s)
            return bytes_of_base64(sent.data, most, sent.field)
        if len(sent.data) > most:
            raise TooLarge(f"The image holds more than {most} bytes.", sent.field)
        return sent.data

    def _fetcher(self, most_bytes: int, accept: str) -> ImageFetcher:
        settings = self._settings
        return ImageFetcher(
            settings.image_hosts,
            most_bytes,
            settings.image_fetch_timeout_s,
            private_hosts=settings.image_private_hosts,
            model=settings.model_name,
            accept=accept,
        )


def _of_video(sentence: str) -> str:
    """What is said of an image's file, said of a video's."""
    for ours, theirs in (("an image", "a video"), ("image", "video")):
        sentence = sentence.replace(ours, theirs)
    return sentence


def file_hash(data: bytes) -> str:
    """A file's SHA-256, as the audit log has it."""
    return hashlib.sha256(data).hexdigest()
