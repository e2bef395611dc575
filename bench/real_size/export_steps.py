"""The steps from nothing to a published build: weights, plan, a build that is killed once, verify, publish."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench.real_size.meter import used_bytes
from bench.real_size.scene import Scene, StepFailed, as_json
from bench.records import Row, rounded
from export.store.build_store import PARTS
from glmserve.build.certificate import Certificate
from glmserve.build.manifest import CERTIFICATE_FILE, Manifest
from launcher.children import ending_with_us

_POLL_S = 0.02  # a rehearsal's build takes a second or two
_KILLED_AT = 0.5
"""Of the bytes that the build writes."""
_WAIT_S = 60.0


def checkpoint(scene: Scene) -> Row:
    """Random bf16 weights for the whole configuration, in four shards."""
    for folder in (scene.partial, scene.checkpoint, scene.gguf):  # the last is made of the checkpoint before
        shutil.rmtree(folder, ignore_errors=True)
    scene.run("checkpoint", "bench", "checkpoint", str(scene.partial), "--model", str(scene.configuration()))
    scene.partial.rename(scene.checkpoint)
    return {"written_bytes": used_bytes(scene.checkpoint)}


def plan(scene: Scene) -> Row:
    """What the build and its serving will take, from headers and a few layers run here."""
    printed = scene.run("plan", "export", "plan", *_of_checkpoint(scene), "--json")
    found = as_json(printed)
    return {
        "new_bytes": found["new_bytes"],
        "build_peak_bytes": found["peak_bytes"],
        "slots": found["slots"],
        "length": found["length"],
        "serving": found["cards"][0],
        "speed": found["speed"],
    }


def build(scene: Scene) -> Row:
    """Builds, is killed when half is written, and continues: what was written then is used and so does not stay."""
    command = [sys.executable, "-m", "export", "build", *_of_checkpoint(scene)]
    wanted = _KILLED_AT * scene.found("plan")["new_bytes"]
    began_s = time.monotonic()
    with scene.log("build-killed").open("wb") as log:
        process = subprocess.Popen(
            ending_with_us(command),
            env=scene.environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while process.poll() is None and used_bytes(scene.builds) < wanted:
                time.sleep(_POLL_S)
        finally:
            if was_killed := process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(_WAIT_S)
    killed_s, kept = time.monotonic() - began_s, used_bytes(scene.builds)
    began_s = time.monotonic()
    printed = scene.run("build", "export", "build", *_of_checkpoint(scene))
    folder = Path(printed.strip().splitlines()[-1])
    Manifest.read(folder).check(folder)
    return {
        "build": str(folder),
        "was_killed": was_killed,
        "continued": not list(scene.builds.glob(f"{PARTS}*")),
        "killed_after_s": rounded(killed_s),
        "kept_bytes": kept,
        "resumed_s": rounded(time.monotonic() - began_s),
        "written_bytes": used_bytes(folder),
    }


def verify(scene: Scene) -> Row:
    """Compares the build with transformers, layer by layer where the model is too large for the memory. That random
    weights are refused when they are rounded is a result too: each stage that failed, and how many did not."""
    build = scene.build
    out = ("--out", str(scene.builds), "--checkpoint", written_checkpoint(scene))
    (build / CERTIFICATE_FILE).unlink(missing_ok=True)  # an older one says nothing of how this run ends
    try:
        scene.run("verify", "export", "verify", build.name, *out)
    except StepFailed:
        stages = _stages(build)
        failed = _failed(stages)
        if not failed:  # it ended for another reason
            raise
        return {"failed": failed, "passed_stages": len(stages) - len(failed)}
    if Certificate.find(build, Manifest.read(build)) is None:
        raise StepFailed(f"verify ended well and wrote no certificate into {build}.")
    return {}


def publish(scene: Scene) -> Row:
    """Asks the build its canary question and makes it the current one; a build that verify refused stays where it
    is."""
    if _failed(_stages(scene.build)):
        scene.say("publish: left out, because verify refused the build")
        return {"is_left_out": True}
    scene.run("publish", "export", "publish", scene.build.name, "--out", str(scene.builds))
    return {}


def _stages(build: Path) -> list[Row]:
    """What a certificate says of each stage; nothing where there is none that can be read."""
    try:
        stages: list[Row] = json.loads((build / CERTIFICATE_FILE).read_text("utf-8"))["stages"]
    except (OSError, ValueError, LookupError):
        return []
    return stages


def _failed(stages: list[Row]) -> list[Row]:
    return [stage for stage in stages if not stage["passed"]]


def clean(scene: Scene) -> Row:
    """Removes the checkpoint, which nothing needs once the build is verified, and llama.cpp's files."""
    before = used_bytes(scene.folder)
    for folder in (scene.checkpoint, scene.gguf):
        shutil.rmtree(folder, ignore_errors=True)
    return {"freed_bytes": before - used_bytes(scene.folder)}


def _of_checkpoint(scene: Scene) -> list[str]:
    out = ["--checkpoint", written_checkpoint(scene), "--out", str(scene.builds)]
    return [*out, "--precision", scene.precision, "--target", "cpu"]


def written_checkpoint(scene: Scene) -> str:
    """Its folder; raises StepFailed where there is none."""
    if not scene.checkpoint.is_dir():
        raise StepFailed(f"There is no checkpoint in {scene.folder}: write it with STEPS=checkpoint.")
    return str(scene.checkpoint)
