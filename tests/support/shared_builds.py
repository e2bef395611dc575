"""Builds that many tests read. Each is made once, for all processes of a run and for later runs, and never altered.

Builds are found by their recipe, so changed code makes new ones. A test that alters one takes a copy.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from functools import cache
from pathlib import Path

import pytest
from filelock import FileLock
from real_checkpoint import REAL
from rich.console import Console

from export.build.pipeline import build
from export.build.vision_backend import VisionBackend
from export.certificate import html
from export.certificate.plots import error_plot, share_plot
from export.precision import KvPrecision, Precision, Target
from export.rtx.order import EngineOrder
from glmserve.build.manifest import MANIFEST_FILE
from glmserve.model.tokenizer import Tokenizer

TESTS = Path(__file__).resolve().parents[1]
DEMO = TESTS.parent / "demo" / "checkpoint"
CACHE = TESTS / ".cache"
KEPT_S = 24 * 3600.0
"""Builds that no run has used for so long are removed."""


@cache
def build_of_demo(
    precision: Precision = Precision.FP32,
    target: Target = Target.CPU,
    vision_backend: VisionBackend = VisionBackend.ENGINE,
    kv: KvPrecision = KvPrecision.SAME,
    order: EngineOrder | None = None,
) -> Path:
    """The demo, built so."""
    name = Path(precision, target, vision_backend, kv)
    return _shared(DEMO, name, precision, target, vision_backend, kv=kv, order=order)


@cache
def build_of_endless() -> Path:
    """The demo with an eos id that it never says, so that an answer runs until somebody ends it."""
    checkpoint = CACHE / "endless" / "checkpoint"
    with _lock(CACHE):
        shutil.copytree(DEMO, checkpoint, dirs_exist_ok=True)
        never = Tokenizer.read(checkpoint).control_tokens["<|end_of_audio|>"]
        (checkpoint / "generation_config.json").write_text(json.dumps({"eos_token_id": [never]}), "utf-8")
    return _shared(checkpoint, Path("endless"))


@cache
def build_with_tools() -> Path:
    """The demo with the real model's chat template, where that is at hand."""
    if not REAL.is_dir():
        return build_of_demo()
    checkpoint = CACHE / "tools" / "checkpoint"
    with _lock(CACHE):
        shutil.copytree(DEMO, checkpoint, dirs_exist_ok=True)
        shutil.copy(REAL / "chat_template.jinja", checkpoint / "chat_template.jinja")
    return _shared(checkpoint, Path("tools"))


def copied(shared: Path, out: Path) -> Path:
    """A copy of a build in another folder of builds, for a test that alters it. It counts as made now."""
    copy = Path(shutil.copytree(shared, out / shared.name))
    os.utime(copy / MANIFEST_FILE)
    return copy


def _shared(checkpoint: Path, name: Path, *how: object, **more: object) -> Path:
    out = CACHE / "builds" / name
    out.mkdir(parents=True, exist_ok=True)
    with _lock(out), pytest.MonkeyPatch.context() as patch:
        for plot in (error_plot, share_plot):  # which tests of one build alone may have left out
            patch.setattr(html, plot.__name__, plot)
        made = build(checkpoint, out, Console(quiet=True), *how, **more)  # type: ignore[arg-type]
        os.utime(made)
        for other in out.glob("*/"):
            if other != made and other.stat().st_mtime < time.time() - KEPT_S:
                shutil.rmtree(other)
    return made


def _lock(folder: Path) -> FileLock:
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / ".tests.lock")
