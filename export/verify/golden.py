"""Compares a build with the logits that somebody recorded beside its checkpoint, so that no torch is needed.

In the checkpoint's folder `golden`, `cases.json` lists conversations with their prompt ids, image grids and greedy
tokens, `logits.safetensors` holds for each the logits f32 [tokens, vocabulary] that led to these tokens, and images
lie beside them as files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file

from export.verify.candidate import Candidate
from export.verify.cases import Case, input_ids
from export.verify.comparison import Stage, share_changed
from glmserve.errors import BadArtifact
from glmserve.model.chat_template import ImagePart, Message
from glmserve.model.config import Checkpoint

_FOLDER = "golden"
_CASES = "cases.json"
_LOGITS = "logits.safetensors"
_CHUNK_TOKENS = 64


@dataclass(frozen=True)
class GoldenCase:
    """A conversation, its prompt ids and [rows, columns] of each image's patches, and the answer with its logits."""

    case: Case
    input_ids: np.ndarray
    grids: list[list[int]]
    answer: list[int]
    logits: np.ndarray


def has_golden(checkpoint: Path) -> bool:
    """Whether there are recorded logits to compare with."""
    return all((checkpoint / _FOLDER / name).is_file() for name in (_CASES, _LOGITS))


def golden_files(checkpoint: Path) -> list[Path]:
    """Every recorded file beside a checkpoint, the canary's among them."""
    return sorted(path for path in (checkpoint / _FOLDER).glob("*") if path.is_file())


def read_golden(checkpoint: Path) -> list[GoldenCase]:
    """The recorded cases; raises BadArtifact when there are none or they cannot be read."""
    folder = checkpoint / _FOLDER
    try:
        logits = load_file(folder / _LOGITS)
        recorded = json.loads((folder / _CASES).read_text("utf-8"))
        if not recorded:
            raise ValueError
        return [_read(values, folder, logits[values["name"]]) for values in recorded]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        raise BadArtifact(f"The golden cases in {folder} cannot be read.") from None


def room_for(cases: list[GoldenCase], checkpoint: Checkpoint) -> int:
    """Tokens of context that the longest case takes; raises BadArtifact, naming it, when the checkpoint has fewer."""
    longest = max(cases, key=_tokens_of)
    most = checkpoint.text.max_positions
    if _tokens_of(longest) > most:
        raise BadArtifact(
            f"The golden case {longest.case.name} has {_tokens_of(longest)} tokens, and the checkpoint takes {most}."
        )
    return _tokens_of(longest)


def compare_golden(candidate: Candidate, cases: list[GoldenCase]) -> Iterator[Stage]:
    """Every stage of every case as it is done, then the greedy answers of all."""
    tolerances = candidate.tolerances
    answers, tokens = [], []
    for golden in cases:
        name = golden.case.name
        grids = [candidate.normalised(image)[1] for image in golden.case.images]
        found = np.asarray([[grid.rows, grid.columns] for grid in grids])
        yield Stage.of(f"{name}: image grids", found, np.asarray(golden.grids), 0)
        yield Stage.of(f"{name}: tokens", input_ids(candidate, golden.case), golden.input_ids, 0)
        candidate.poison()
        prompt = candidate.prompt(golden.input_ids, list(golden.case.images))
        ours = candidate.logits_along(prompt, golden.answer, _CHUNK_TOKENS)
        yield Stage.of(f"{name}: logits", ours, golden.logits, tolerances.logits, tolerances.is_relative)
        yield Stage.of_divergence(f"{name}: logits", ours, golden.logits, tolerances.divergence)
        changed = (ours.argmax(axis=-1) != np.asarray(golden.answer)).tolist()
        tokens += changed
        answers.append(any(changed))
    yield share_changed(f"{len(answers)} greedy answers: share changed", answers, tolerances.answers)
    yield share_changed(f"their {len(tokens)} tokens: share changed", tokens, tolerances.tokens)


def _tokens_of(golden: GoldenCase) -> int:
    """Of prompt and answer."""
    return len(golden.input_ids) + len(golden.answer)


def _read(values: dict[str, Any], folder: Path, logits: np.ndarray) -> GoldenCase:
    messages, images = [], []
    for message in values["messages"]:
        content = message["content"]
        parts: list[str | ImagePart] = []
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "image":
                with Image.open(folder / Path(part["image"]).name) as image:
                    images.append(image.copy())
                parts.append(ImagePart())
            else:
                parts.append(part["text"])
        messages.append(Message(message["role"], tuple(parts)))
    return GoldenCase(
        Case(values["name"], tuple(messages), tuple(images), values["thinking"]),
        np.asarray(values["input_ids"], np.int64),
        [grid[-2:] for grid in values["image_grid"]],
        values["generated_ids"],
        logits,
    )
