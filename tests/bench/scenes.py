"""Runs of `make real-size` for its tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from bench.real_size.scene import Scene


def scene_in(folder: Path, **changes: Any) -> Scene:
    defaults = {"model": None, "precision": "fp32", "layers": None, "blocks": None, "say": print}
    return Scene(folder, **defaults | changes)


def done(scene: Scene, step: str, **row: Any) -> Scene:
    path = scene.folder / "steps" / f"{step}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps([row]), "utf-8")
    return scene


def planned_in_fp32(folder: Path) -> Scene:
    return done(scene_in(folder), "plan", precision="fp32")


def with_checkpoint(scene: Scene) -> None:
    scene.checkpoint.mkdir(parents=True)
    shutil.copyfile(scene.configuration() / "config.json", scene.checkpoint / "config.json")


def written(scene: Scene) -> None:
    """Its checkpoint step is done."""
    with_checkpoint(scene)
    done(scene, "checkpoint")
