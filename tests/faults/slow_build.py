"""The demo's build with a pause in every step of its engine: real answers, slow enough to be interrupted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from stand_in_build import describe_again

from glmserve.build.manifest import REPOSITORY_FOLDER
from glmserve.contract import DECODER_MODEL


def write_slow_build(demo: Path, out: Path, step_s: float) -> Path:
    """A copy of the demo's build, under `out`, whose steps take `step_s` longer."""
    build = Path(shutil.copytree(demo, out / "slow", ignore=shutil.ignore_patterns("__pycache__")))
    model = build / REPOSITORY_FOLDER / DECODER_MODEL / "1"
    (model / "model.py").rename(model / "adapter.py")
    shutil.copyfile(Path(__file__).with_name("slow_model.py"), model / "model.py")
    (model / "step_s.json").write_text(json.dumps(step_s), "utf-8")
    describe_again(build)
    return build
