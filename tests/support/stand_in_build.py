"""The parts of a build that a gateway reads: the demo's processor files, and a canary of the test's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from PIL import Image

from glmserve.build.manifest import CANARY_FOLDER, CERTIFICATE_FILE, CHECKPOINT_FOLDER, Manifest
from glmserve.contract import CONTRACT_VERSION
from glmserve.model.config import PROCESSOR_FILES

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"


def write_processor_and_canary(folder: Path, prompt: str, answer: str | None) -> None:
    """Into an empty build folder; the caller adds what else it needs, and the manifest."""
    (folder / CHECKPOINT_FOLDER).mkdir()
    for name in (*PROCESSOR_FILES, "generation_config.json"):
        shutil.copy(DEMO / name, folder / CHECKPOINT_FOLDER / name)
    (folder / CANARY_FOLDER).mkdir()
    Image.new("RGB", (112, 112), "red").save(folder / CANARY_FOLDER / "image.png")
    canary = {"prompt": prompt, "answer": answer}
    (folder / CANARY_FOLDER / "canary.json").write_text(json.dumps(canary), "utf-8")


def write_stand_in(folder: Path, prompt: str, answer: str | None) -> None:
    """Into an empty folder: a build as far as a gateway looks at it."""
    write_processor_and_canary(folder, prompt, answer)
    Manifest.describe(folder, "recipe", "demo", "fp32", "cpu").write(folder)


def describe_again(build: Path) -> None:
    """For a stand-in build that a test has altered on purpose: its manifest and certificate say what is in it now."""
    Manifest.describe(build, "recipe", "stand-in", "fp32", "cpu").write(build)
    write_certificate(build)


def write_certificate(build: Path) -> None:
    """For a build with its manifest: somebody vouches for it, for ever."""
    values = {
        "digest": Manifest.read(build).digest,
        "contract_version": CONTRACT_VERSION,
        "against": "nothing",
        "passed": True,
        "made": "2026-01-01T00:00:00+00:00",
        "expires": None,
    }
    (build / CERTIFICATE_FILE).write_text(json.dumps(values), "utf-8")
