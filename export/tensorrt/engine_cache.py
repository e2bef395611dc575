"""Keeps TensorRT engines, each for one GPU, one TensorRT and one build, and finds the one that fits here."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from export.build.vision_backend import VisionBackend, fixed_sizes
from export.errors import MissingTensorRt
from export.store.build_store import ENGINE_PARTS, ENGINES_LOCK, locked
from export.tensorrt.compile import load_tensorrt, vision_plan
from glmserve.build.manifest import (
    CANARY_FOLDER,
    CERTIFICATE_FILE,
    CHECKPOINT_FOLDER,
    MANIFEST_FILE,
    REPOSITORY_FOLDER,
    Manifest,
    sha256_of,
)
from glmserve.contract import MODELS, VISION_MODEL, render_vision_config
from glmserve.model.config import Checkpoint

_KEY_FILE, _PLAN_FILE, _TIMING_FILE = "key.json", "model.plan", "timing.cache"
_SMI = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
_SMI_TIMEOUT_S = 30.0
_LOCK_TIMEOUT_S = 600.0
"""Others hold the lock only while they write an engine that is made."""


@dataclass(frozen=True)
class EngineKey:
    """What an engine was made of and for; it runs nowhere else."""

    digest: str
    compute_capability: str
    tensorrt: str

    @staticmethod
    def here(digest: str) -> EngineKey:
        """The key of this machine's first GPU and TensorRT; raises MissingTensorRt."""
        return EngineKey(digest, _compute_capability(), str(load_tensorrt().__version__))

    @property
    def name(self) -> str:
        """The folder's name: `sm90-trt10.15.1`."""
        return f"sm{self.compute_capability.replace('.', '')}-trt{self.tensorrt}"


def make_engine(build: Path, engines: Path) -> Path:
    """The folder of the engine for this machine, made unless it is there: a model repository that runs it.

    It lies in `engines/<digest>/<GPU and TensorRT>`, complete or not at all; the timing cache beside it is kept from
    one build to the next. Raises MissingTensorRt, BadArtifact when the build is altered or cannot be parsed, and Locked
    while another command takes too long to lay its engine out.
    """
    manifest = Manifest.read(build)
    key = EngineKey.here(manifest.digest)
    folder = engines / key.digest / key.name
    if _is_whole(folder, key):
        return folder
    manifest.check(build)
    plan = vision_plan(build, engines / f"{key.name}.{_TIMING_FILE}")
    with locked(engines, ENGINES_LOCK, _LOCK_TIMEOUT_S):
        if not _is_whole(folder, key):  # another command may have made it in the meantime, and it may be served
            _put(build, engines, folder, key, plan)
    return folder


def _put(build: Path, engines: Path, folder: Path, key: EngineKey, plan: bytes) -> None:
    """Lays the engine out aside and gives it its name, in the place of one whose plan was damaged."""
    partial = engines / f"{ENGINE_PARTS}{uuid.uuid4().hex}"
    try:
        _lay_out(build.resolve(), partial, folder.resolve(), plan)
        values = asdict(key) | {"sha256": hashlib.sha256(plan).hexdigest()}
        (partial / _KEY_FILE).write_text(json.dumps(values, indent=1) + "\n", "utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def repository_to_serve(build: Path, engines: Path, warn: Callable[[str], None]) -> Path:
    """The model repository for tritonserver on this machine: the one with the engine that fits, else the build's own,
    whose images the engine reads; then `warn` hears why."""
    own = build / REPOSITORY_FOLDER
    digest = Manifest.read(build).digest
    try:
        key = EngineKey.here(digest)
    except MissingTensorRt as error:
        warn(f"NO TENSORRT, images are read by ONNX Runtime: {error.message}")
        return own
    folder = engines / digest / key.name
    if _is_whole(folder, key):
        return folder / REPOSITORY_FOLDER
    there = ", ".join(sorted(path.name for path in (engines / digest).glob("sm*"))) or "none"
    warn(
        f"NO TENSORRT ENGINE FITS, images are read by ONNX Runtime: build {digest} needs {key.name} here, and has "
        f"{there}. Make it with: python -m export tensorrt {build}"
    )
    return own


def _is_whole(folder: Path, key: EngineKey) -> bool:
    """Whether the folder holds the key's engine, unaltered."""
    plan = _plan_path(folder)
    try:
        values = json.loads((folder / _KEY_FILE).read_text("utf-8"))
        return bool(values == asdict(key) | {"sha256": sha256_of(plan)})
    except (OSError, ValueError):
        return False


def _plan_path(folder: Path) -> Path:
    return folder / REPOSITORY_FOLDER / VISION_MODEL / "1" / _PLAN_FILE


def _lay_out(build: Path, partial: Path, final: Path, plan: bytes) -> None:
    """The build as it is, but for the image encoder: links relative to where the folder is going to be."""
    path = _plan_path(partial)
    path.parent.mkdir(parents=True)
    path.write_bytes(plan)
    sizes = fixed_sizes(Checkpoint.read(build / CHECKPOINT_FOLDER))
    config = render_vision_config(VisionBackend.TENSORRT, on_gpu=True, sizes=sizes)
    (partial / REPOSITORY_FOLDER / VISION_MODEL / "config.pbtxt").write_text(config, "utf-8")
    for name in (MANIFEST_FILE, CERTIFICATE_FILE, CHECKPOINT_FOLDER, CANARY_FOLDER):
        (partial / name).symlink_to(os.path.relpath(build / name, final))
    for model in MODELS:
        own = build / REPOSITORY_FOLDER / model
        (partial / REPOSITORY_FOLDER / model).symlink_to(os.path.relpath(own, final / REPOSITORY_FOLDER))


def _compute_capability() -> str:
    """Of the first GPU, such as 9.0."""
    try:
        done = subprocess.run(_SMI, capture_output=True, text=True, timeout=_SMI_TIMEOUT_S, check=True)
        return done.stdout.splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError):
        raise MissingTensorRt(
            "No NVIDIA GPU answers here: nvidia-smi does not run. Engines are made for one."
        ) from None
