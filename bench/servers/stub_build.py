"""Builds without weights: our own Triton adapter and engine, on a decoder that only lets time pass."""

from __future__ import annotations

import shutil
from pathlib import Path

from bench.checkpoints.synthetic import DEMO
from bench.servers.paced_engine import Pace
from export.build.canary import write_canary
from glmserve.build.manifest import CANARY_FOLDER, CHECKPOINT_FOLDER, REPOSITORY_FOLDER, Manifest
from glmserve.contract import DECODER_MODEL
from glmserve.model.config import PROCESSOR_FILES

_MODELS = Path(__file__).resolve().parents[2] / "model_repository"
_SERVING = "from glmserve.engine.server import Serving"
_INSTEAD = "from bench.servers.paced_engine import PacedServing as Serving"


def write_stand_in(out: Path, pace: Pace) -> Path:
    """A build of this pace under `out`, named by its digest; its canary accepts any answer."""
    partial = out / f".partial-{pace.letter}"
    repository = partial / REPOSITORY_FOLDER
    shutil.copytree(_MODELS, repository, ignore=shutil.ignore_patterns("__pycache__"))
    adapter = repository / DECODER_MODEL / "1" / "model.py"
    head, line, tail = adapter.read_text("utf-8").partition(_SERVING)
    assert line, f"the adapter of {DECODER_MODEL} opens something else by now"
    adapter.write_text(head + _INSTEAD + tail, "utf-8")
    pace.write(repository / DECODER_MODEL / "1")
    (partial / CHECKPOINT_FOLDER).mkdir()
    for name in (*PROCESSOR_FILES, "generation_config.json"):
        shutil.copyfile(DEMO / name, partial / CHECKPOINT_FOLDER / name)
    write_canary(partial, partial / CANARY_FOLDER)
    manifest = Manifest.describe(partial, "recipe", "stand-in", "fp32", "cpu")
    manifest.write(partial)
    return partial.rename(out / manifest.digest)
