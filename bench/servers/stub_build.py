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


def write_stub_build(out: Path, pace: Pace) -> Path:
    """A build of this pace under `out`, named by its digest; its canary accepts any answer."""
    partial = out / f".partial-{pace.letter}"
    shutil.copytree(_MODELS, partial / REPOSITORY_FOLDER, ignore=shutil.ignore_patterns("__pycache__"))
    decoder = partial / REPOSITORY_FOLDER / DECODER_MODEL / "1"
    (decoder / "model.py").rename(decoder / "adapter.py")
    shutil.copyfile(Path(__file__).with_name("stub_model.py"), decoder / "model.py")
    pace.write(decoder)
    (partial / CHECKPOINT_FOLDER).mkdir()
    for name in (*PROCESSOR_FILES, "generation_config.json"):
        shutil.copyfile(DEMO / name, partial / CHECKPOINT_FOLDER / name)
    write_canary(partial, partial / CANARY_FOLDER)
    manifest = Manifest.describe(partial, "recipe", "stub", "fp32", "cpu")
    manifest.write(partial)
    return partial.rename(out / manifest.digest)
