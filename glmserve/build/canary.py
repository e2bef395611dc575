"""A build's canary: the question a server must answer before it calls itself ready."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from glmserve.build.manifest import CANARY_FOLDER
from glmserve.errors import BadArtifact

CANARY_FILE = f"{CANARY_FOLDER}/canary.json"
CANARY_IMAGE = f"{CANARY_FOLDER}/image.png"


@dataclass(frozen=True)
class Canary:
    """A prompt about an image, to be answered greedily; `answer` is the only right one, None where it is not known."""

    prompt: str
    answer: str | None
    image: bytes  # a PNG file

    @staticmethod
    def read(build: Path) -> Canary:
        """The canary of a build; raises BadArtifact with the name of the file that is missing or wrong."""
        file, image = build / CANARY_FILE, build / CANARY_IMAGE
        try:
            values = json.loads(file.read_text("utf-8"))
            prompt, answer = values["prompt"], values["answer"]
        except (OSError, ValueError, KeyError, TypeError):
            raise BadArtifact(
                f"{file} cannot be read: a build's canary is a JSON object with a prompt and an answer."
            ) from None
        if not isinstance(prompt, str) or not isinstance(answer, str | None):
            raise BadArtifact(f"{file}: the prompt must be a string, and the answer a string or null.")
        try:
            return Canary(prompt, answer, image.read_bytes())
        except OSError:
            raise BadArtifact(f"{image} cannot be read: a build's canary has an image.") from None
