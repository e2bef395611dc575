"""Runs the full-size model on this machine's GPU, beside what its memory allows and beside transformers.

Without a GPU the same code runs at tiny size on the CPU, which only shows that the check works.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from bench.checkpoints.builds import ExportFailed, build_of
from bench.checkpoints.synthetic import write_checkpoint, write_like
from bench.gpu.plan import TINY, Plan, card, full_size, rehearsal, report, rows_of
from bench.records import Row, Say
from export.precision import Precision, Target
from export.verify.tolerances import TOLERANCES

_HALF_TIMEOUT_S = 3600.0
_PROBE_TIMEOUT_S = 120.0
_PROBE = "from glmserve.engine.runtime.device import open_device; open_device('cuda')"
_MOST_LOST = {"fp32": 1e-3, "bf16": 1.0}
"""By how many nats a token may be less likely to torch than torch's own choice; a random token loses about 18."""


class HalfFailed(Exception):
    """A half of the check failed; the message holds the end of its output."""


@dataclass(frozen=True)
class Verdict:
    """What the check found: rows for the results file, and whether the build's tokens are torch's."""

    rows: list[Row]
    has_gpu: bool
    is_right: bool


def gpu_check(model: Path | None, scratch: Path, say: Say) -> Verdict:
    """Makes checkpoint and build in `scratch`, unless they are there, and measures. `model` is a folder with the real
    configuration and tokenizer; raises ValueError when a GPU is there and it is not."""
    missing = _why_no_gpu()
    tiny = f"NO GPU ({missing}): the same code at tiny size on the CPU; its figures say nothing about a GPU."
    say(tiny if missing else f"GPU: {card()}")
    scratch.mkdir(parents=True, exist_ok=True)
    plan = _rehearsal(scratch, say) if missing else _full_size(model, scratch, say)
    plan.write(scratch / "plan.json")
    ours = _half("bench.gpu.ours", scratch, ["plan.json", "ours.json"])
    ours["decoded"] += _with_kv_in_8_bits(plan, scratch, say)
    (scratch / "ours.json").write_text(json.dumps(ours), "utf-8")
    torchs = None
    try:
        torchs = _half("bench.gpu.transformers_side", scratch, ["plan.json", "ours.json", "torch.json"])
    except HalfFailed as error:
        say(f"transformers could not run beside it, so tokens were not checked: {error}")
    rows = rows_of(plan, ours, torchs)
    say(report(plan, rows))
    return Verdict(rows, not missing, torchs is not None and _is_right(plan, rows, torchs))


def _why_no_gpu() -> str:
    """Why the engine cannot open a GPU, or nothing; another process tries it, so that the GPU is free again."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False
    )
    return "" if done.returncode == 0 else done.stderr.strip().splitlines()[-1].partition(": ")[2]


def _rehearsal(scratch: Path, say: Say) -> Plan:
    checkpoint = scratch / "tiny"
    if not checkpoint.is_dir():
        write_checkpoint(TINY, checkpoint)
    return rehearsal(checkpoint, build_of(checkpoint, Precision.FP32, say, out=scratch / "builds"), _image(scratch))


def _full_size(model: Path | None, scratch: Path, say: Say) -> Plan:
    if model is None:
        raise ValueError("A full-size check needs a folder with the real config.json and tokenizer: MODEL=DIR.")
    checkpoint = scratch / "full-size"
    if not checkpoint.is_dir():
        say("writing the full-size checkpoint with random weights ...")
        write_like(model, scratch / ".partial").rename(checkpoint)
    build = build_of(checkpoint, Precision.BF16, say, Target.CUDA, scratch / "builds")
    return full_size(checkpoint, build, _image(scratch))


def _with_kv_in_8_bits(plan: Plan, scratch: Path, say: Say) -> list[dict[str, Any]]:
    """The steps of a build with KV in 8 bits; nothing, and a line with the reason, where it does not run."""
    try:
        target = Target.CUDA if plan.device == "cuda" else Target.CPU
        build = build_of(Path(plan.checkpoint), plan.precision, say, target, scratch / "builds-kv", "int8")
        replace(plan, build=str(build), kv="int8").write(scratch / "plan-kv.json")
        return list(_half("bench.gpu.ours", scratch, ["plan-kv.json", "ours-kv.json"])["decoded"])
    except (ExportFailed, HalfFailed) as error:
        say(f"KV in 8 bits does not run here: {error}")
        return []


def _image(scratch: Path) -> Path:
    """A test image: 448 x 448, every shade of grey."""
    path = scratch / "image.png"
    Image.linear_gradient("L").resize((448, 448)).convert("RGB").save(path)
    return path


def _half(program: str, scratch: Path, files: list[str]) -> dict[str, Any]:
    """What one of the two halves wrote into the last of its files; a process of its own frees the GPU at its end."""
    command = [sys.executable, "-m", program, *(str(scratch / name) for name in files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_HALF_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise HalfFailed(" | ".join(done.stderr.strip().splitlines()[-3:]))
    found: dict[str, Any] = json.loads((scratch / files[-1]).read_text("utf-8"))
    return found


def _is_right(plan: Plan, rows: list[Row], torchs: dict[str, Any]) -> bool:
    """Both sides round where precision is low, so of two tokens that are nearly as likely each may choose another."""
    worst = max(row["worst_loss"] for row in rows if row["kv"] == "same")
    features = TOLERANCES[Precision(plan.precision)].features
    return bool(worst <= _MOST_LOST[plan.precision] and torchs["feature_error"]["worst"] <= features)
