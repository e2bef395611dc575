"""The files that a request sends: bytes of a form, base64, or what lies at a URL."""

from __future__ import annotations

import hashlib

from gateway.chat.image_decoder import bytes_of_base64
from gateway.chat.image_fetcher import ImageFetcher, is_url
from gateway.deadline import Deadline
from gateway.schemas.conversation import SentImage, SentVideo
from gateway.settings import GatewaySettings
from glmserve.errors import BadImage, BadVideo, TooLarge


class SentFiles:
    """Reads files within the settings' bounds; shared between threads."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._pictures = self._fetcher(settings.max_image_bytes, "image/*")
        self._films = self._fetcher(settings.max_video_bytes, "video/*, image/gif, image/webp")

    def read(self, sent: SentImage | SentVideo, deadline: Deadline) -> list[bytes]:
        """The file, or the pictures of a video that came as a list; raises BadImage, BadVideo and TooLarge."""
        if isinstance(sent, SentImage):
            return [self._read(sent, self._pictures, self._settings.max_image_bytes, deadline)]
        if sent.frames:
            return [file for frame in sent.frames for file in self.read(frame, deadline)]
        try:
            return [self._read(sent, self._films, self._settings.max_video_bytes, deadline)]
        except TooLarge as error:
            raise TooLarge(_of_video(error.message), error.field) from error
        except BadImage as error:
            raise BadVideo(_of_video(error.message), error.field) from error

    def _read(self, sent: SentImage | SentVideo, urls: ImageFetcher, most: int, deadline: Deadline) -> bytes:
        if isinstance(sent.data, str):
            if is_url(sent.data):
                return urls.read(sent.data.strip(), sent.field, deadline.left_s())
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
    """What is said of a picture's file, said of a video's."""
    for ours, theirs in (("picture", "video"), ("image", "video")):
        sentence = sentence.replace(ours, theirs)
    return sentence


def file_hash(data: bytes) -> str:
    """A file's SHA-256, as the audit log has it."""
    return hashlib.sha256(data).hexdigest()
