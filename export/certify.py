"""Runs the comparison with transformers and leaves its result in the build, as a certificate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.console import Console

from export.candidate import Candidate
from export.layerwise import layerwise_stages, must_stream
from export.parity import Case, Stage, compare, input_ids, sketch, standard_cases
from export.reference import Reference
from glmserve.contract import CONTRACT_VERSION
from glmserve.manifest import CERTIFICATE_FILE, Manifest
from glmserve.prompt import Message, Picture

_SLOTS = 8
_CONTEXT = 1024
_ANSWER_TOKENS = 32
_QUESTIONS = (
    "What is in this picture?",
    "How many shapes are there?",
    "图中有什么？",
    "What colour is the background?",
)
_PACKAGES = ("torch", "transformers", "onnxruntime", "numpy", "pillow", "tokenizers")


def certify(build: Path, checkpoint: Path, answers: int, console: Console) -> bool:
    """Compares every stage, prints the table, writes `certificate.json`; True when nothing exceeded its tolerance.

    Raises BadArtifact when the build is incomplete or altered.
    """
    manifest = Manifest.read(build)
    manifest.check(build)
    stages = []
    for stage in _all_stages(build, checkpoint, answers, console):
        stages.append(stage)
        console.print(_line(stage))
    passed = all(stage.passed for stage in stages)
    certificate = {
        "digest": manifest.digest,
        "contract_version": CONTRACT_VERSION,
        "precision": manifest.precision,
        "passed": passed,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in _PACKAGES},
        "stages": [asdict(stage) | {"passed": stage.passed} for stage in stages],
    }
    (build / CERTIFICATE_FILE).write_text(json.dumps(certificate, indent=1) + "\n", "utf-8")
    console.print(f"{'passed' if passed else 'FAILED'}: {build / CERTIFICATE_FILE}")
    return passed


def _all_stages(build: Path, checkpoint: Path, answers: int, console: Console) -> Iterator[Stage]:
    if must_stream(checkpoint):
        console.print("the checkpoint does not fit in memory: each layer is loaded and compared alone ...")
        yield from layerwise_stages(build, checkpoint)
        return
    console.print("loading the checkpoint in transformers ...")
    reference, candidate = Reference(checkpoint), Candidate(build, _SLOTS, _CONTEXT)
    yield from compare(reference, candidate, standard_cases())
    yield from _greedy_agreement(reference, candidate, answers)


def _greedy_agreement(reference: Reference, candidate: Candidate, answers: int) -> Iterator[Stage]:
    """The share of greedy answers that differ from `generate` in any token, and of their tokens that differ when what
    stands before them does not."""
    changed_answers, changed_tokens = [], []
    for index in range(answers):
        picture = sketch(112 + 28 * (index % 5), 112 + 28 * (index % 3), seed=100 + index)
        question = _QUESTIONS[index % len(_QUESTIONS)]
        case = Case(f"answer {index}", (Message("user", (Picture(), question)),), (picture,))
        ids = input_ids(candidate, case)
        prompt, wanted = candidate.prompt(ids, [picture]), reference.answer(ids, [picture], _ANSWER_TOKENS)
        changed_answers.append(candidate.answer(prompt, _ANSWER_TOKENS) != wanted)
        changed_tokens += (candidate.likeliest(prompt, wanted) != np.asarray(wanted)).tolist()
    allowed = candidate.allowed
    yield _share(f"{answers} greedy answers: share changed", changed_answers, allowed.answers)
    yield _share(f"their {len(changed_tokens)} tokens: share changed", changed_tokens, allowed.tokens)


def _share(name: str, changed: list[bool], tolerance: float) -> Stage:
    return Stage(name, float(np.mean(changed)), float(np.median(changed)), tolerance)


def _line(stage: Stage) -> str:
    verdict = "[green]ok[/]    " if stage.passed else "[red]FAILED[/]"
    return (
        f"{verdict} {stage.name:<42} worst {stage.worst:.1e}  median {stage.typical:.1e}  allowed {stage.tolerance:.0e}"
    )
