"""A build's canary is read in one place, and whatever is wrong with it names its file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glmserve.build.canary import CANARY_FILE, CANARY_IMAGE, Canary
from glmserve.errors import BadArtifact


@pytest.fixture
def build(tmp_path: Path) -> Path:
    (tmp_path / CANARY_FILE).parent.mkdir()
    (tmp_path / CANARY_IMAGE).write_bytes(b"png")
    (tmp_path / CANARY_FILE).write_text(json.dumps({"prompt": "What is it?", "answer": None}), "utf-8")
    return tmp_path


def test_prompt_answer_and_image_are_read(build: Path) -> None:
    assert Canary.read(build) == Canary("What is it?", None, b"png")


@pytest.mark.parametrize(
    "text", [None, "{", "[]", "7", '{"prompt": "x"}', '{"prompt": 7, "answer": null}', '{"prompt": "x", "answer": 7}']
)
def test_a_wrong_question_names_its_file(build: Path, text: str | None) -> None:
    (build / CANARY_FILE).unlink()
    if text is not None:
        (build / CANARY_FILE).write_text(text, "utf-8")
    with pytest.raises(BadArtifact, match=r"canary/canary\.json"):
        Canary.read(build)


def test_a_missing_image_names_its_file(build: Path) -> None:
    (build / CANARY_IMAGE).unlink()
    with pytest.raises(BadArtifact, match=r"canary/image\.png"):
        Canary.read(build)
