"""Without torch: the demo's build reproduces the logits that transformers left beside its checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from safetensors.numpy import load_file

from demo.golden_set import GOLDEN, ParityCase, parity_cases
from export.build.pipeline import build
from export.verify.candidate import Candidate
from glmserve.model.chat_template import ImagePart, Message

DEMO = GOLDEN.parent
CASES = parity_cases()
LOGITS = load_file(GOLDEN / "logits.safetensors")
TOLERANCE = 1e-4
PREPROCESSORS = ["preprocessor_config.json", "video_preprocessor_config.json"]  # whose rules must agree


@pytest.fixture(scope="module")
def candidate(demo_build: Path) -> Candidate:
    return _candidate(demo_build)


def _candidate(made: Path) -> Candidate:
    return Candidate(made, slots=2, context=1024)


def _parts(content: str | list[dict[str, str]]) -> tuple[str | ImagePart, ...]:
    if isinstance(content, str):
        return (content,)
    return tuple(ImagePart() if part["type"] == "image" else part["text"] for part in content)


def _images(case: ParityCase) -> list[Image.Image]:
    contents = [message["content"] for message in case.messages]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return [Image.open(GOLDEN / part["image"]) for part in parts if part["type"] == "image"]


def _error(candidate: Candidate, case: ParityCase) -> float:
    """The worst error of the logits that led to each golden token, fed token by token."""
    prompt = candidate.prompt(np.asarray(case.input_ids, np.int64), _images(case))
    logits = [candidate.prefill(prompt, row=0, chunk_tokens=64)[-1]]
    for index, token in enumerate(case.generated_ids[:-1]):
        logits.append(candidate.decode([token], [prompt.length + index], [prompt.delta])[0])
    return float(np.abs(np.stack(logits) - LOGITS[case.name]).max())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden_logits_are_reproduced(candidate: Candidate, case: ParityCase) -> None:
    assert _error(candidate, case) <= TOLERANCE


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden_prompts_are_reproduced(candidate: Candidate, case: ParityCase) -> None:
    grids = [candidate.normalised(image)[1] for image in _images(case)]
    assert [[1, grid.rows, grid.columns] for grid in grids] == case.image_grid
    messages = [Message(message["role"], _parts(message["content"])) for message in case.messages]
    assert candidate.prompts.build(messages, grids, case.thinking).tolist() == case.input_ids


@pytest.mark.parametrize(
    ("files", "section", "key", "value"),
    [
        (PREPROCESSORS, None, "image_mean", [0.5, 0.5, 0.5]),
        (PREPROCESSORS, None, "image_std", [0.3, 0.3, 0.3]),
        (["config.json"], "rope_parameters", "mrope_section", [3, 3, 2]),
        (["config.json"], "rope_parameters", "rope_theta", 90),
    ],
)
def test_golden_logits_notice_what_answers_would_not(
    files: list[str], section: str | None, key: str, value: object, tmp_path: Path
) -> None:
    """A slightly wrong rule leaves most answers right; the logits show it by orders of magnitude."""
    checkpoint = Path(shutil.copytree(DEMO, tmp_path / "checkpoint"))
    for file in files:
        values = json.loads((checkpoint / file).read_text("utf-8"))
        target = values["text_config"][section] if section else values
        assert key in target and target[key] != value
        target[key] = value
        (checkpoint / file).write_text(json.dumps(values), "utf-8")
    case = next(case for case in CASES if case.name == "one_picture")
    assert _error(_candidate(build(checkpoint, tmp_path / "builds", Console(quiet=True))), case) > 100 * TOLERANCE
