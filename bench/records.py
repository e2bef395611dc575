"""The results of a measurement: rows of figures as JSON, each with the run it comes from."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from export.store.build_store import write_whole
from glmserve.system.cpu_count import cores

RESULTS = Path(__file__).resolve().parent / "results"
MEASURED = ("gateway", "glmserve", "model_repository")
"""The folders whose changes may change a figure."""
# fmt: off
_PACKAGES = (
    "onnxruntime", "onnxruntime-gpu", "numpy", "nvidia-pytriton", "tritonclient",
    "torch", "transformers", "flask", "gunicorn",
)
# fmt: on
_GIT_TIMEOUT_S = 10.0
_DIGITS = 4

Row = dict[str, Any]
Say = Callable[[str], None]
"""Where progress goes, line by line."""


def rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def spread(name: str, values: Sequence[float]) -> Row:
    """Two fields of a row: the median of all rounds as `name`, and the lowest and the highest as `name_spread`."""
    return {
        name: rounded(statistics.median(values)),
        f"{name}_spread": [rounded(min(values)), rounded(max(values))],
    }


def write(name: str, rows: Sequence[Row], command: str, folder: Path | None = None) -> Path:
    """Writes `results/<name>.json`, or the same in another folder; each row tells the run it comes from."""
    run = _run(command)
    folder = folder or RESULTS
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    write_whole(path, json.dumps([{**row, "run": run} for row in rows], indent=1) + "\n")
    return path


def read(name: str) -> list[Row]:
    """The rows of `results/<name>.json`; none where it was never measured."""
    path = RESULTS / f"{name}.json"
    return list(json.loads(path.read_text("utf-8"))) if path.is_file() else []


def outdated() -> list[str]:
    """A line for each results file that is older than the last commit to what it measures."""
    changed = _git("log", "-1", "--format=%cs", "--", *MEASURED)
    dates = {path.stem: json.loads(path.read_text("utf-8"))[0]["run"]["date"] for path in RESULTS.glob("*.json")}
    return [
        f"{name}: measured on {date}, and {', '.join(MEASURED)} changed last on {changed}"
        for name, date in sorted(dates.items())
        if date < changed
    ]


def _run(command: str) -> Row:
    installed = {found.metadata["Name"].lower(): found.version for found in distributions()}
    return {
        "command": command,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": (_git("rev-parse", "--short", "HEAD") or "unknown")
        + ("+changes" if _git("status", "--porcelain") else ""),
        "cpu": _cpu(),
        "cores": cores(),
        "versions": {"python": platform.python_version()}
        | {name: installed[name] for name in _PACKAGES if name in installed},
    }


def _git(*arguments: str) -> str:
    """What git says; nothing where this is no repository."""
    done = subprocess.run(
        ["git", "-C", RESULTS.parent.parent, *arguments],
        capture_output=True,
        text=True,
        timeout=_GIT_TIMEOUT_S,
        check=False,
    )
    return done.stdout.strip()


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
