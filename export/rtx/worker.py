"""Builds one engine in a process of its own, which gives all its memory back: `python -m export.rtx.worker JOB`."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from export.rtx.layer_report import faults
from export.rtx.library import load_tensorrt_rtx
from export.rtx.network import build_plan
from glmserve.errors import BadArtifact, GlmServeError

REFUSED = 3
"""The exit code after a sentence on stderr."""
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


@dataclass(frozen=True)
class Job:
    """One engine: its graph, the shapes or sizes it is built for, how many attentions must be fused in it and in which
    type it computes; `plan` and `report` are what it leaves, the plan last."""

    graph: str
    shapes: dict[str, list]
    capabilities: list[str]
    attentions: int
    real: str
    plan: str
    report: str

    @staticmethod
    def read(path: Path) -> Job:
        return Job(**json.loads(path.read_text("utf-8")))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), "utf-8")


def work(job: Job) -> None:
    """Builds the engine; raises BadArtifact when TensorRT refuses the graph or makes of it what it should not."""
    began = time.monotonic()
    trt = load_tensorrt_rtx()
    built = build_plan(trt, Path(job.graph), job.shapes, job.capabilities)
    wrong = faults(built.layers, job.attentions, job.real)
    if wrong:
        raise BadArtifact(f"TensorRT for RTX makes of {Path(job.graph).name} what it should not: {'; '.join(wrong)}.")
    report = {
        "layers": [asdict(layer) for layer in built.layers],
        "seconds": round(time.monotonic() - began, 1),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    Path(job.report).write_text(json.dumps(report), "utf-8")
    aside = Path(f"{job.plan}.part")
    with aside.open("wb") as file:
        file.write(memoryview(built.plan))
        file.flush()
        os.fsync(file.fileno())
    aside.rename(job.plan)


def main() -> None:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    try:
        work(Job.read(Path(sys.argv[1])))
    except GlmServeError as error:
        print(error.message, file=sys.stderr)
        sys.exit(REFUSED)


if __name__ == "__main__":
    main()
