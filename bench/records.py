"""The results of a measurement: rows of figures as JSON, each with the run it comes from."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from glmserve.system.cpu_count import cores

RESULTS = Path(__file__).resolve().parent / "results"
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


@dataclass(frozen=True)
class Spread:
    """The median of what several rounds gave, and the lowest and highest of them."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        return Spread(statistics.median(values), min(values), max(values))

    def fields(self, name: str) -> Row:
        """As two fields of a row: `name` and `name_spread`."""
        return {name: rounded(self.median), f"{name}_spread": [rounded(self.low), rounded(self.high)]}


class Samples:
    """Named values, one of each a round."""

    def __init__(self) -> None:
        self._values: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, values: Mapping[str, float]) -> None:
        """One round's values."""
        for name, value in values.items():
            self._values[name].append(value)

    def row(self) -> Row:
        """The spread of each value."""
        return {key: field for n, v in self._values.items() for key, field in Spread.of(v).fields(n).items()}

    def __str__(self) -> str:
        """The last round's values."""
        return ", ".join(f"{name} {rounded(values[-1]):g}" for name, values in self._values.items())


def write(name: str, rows: Sequence[Row], command: str, folder: Path | None = None) -> Path:
    """Writes `results/<name>.json`, or the same in another folder; each row tells the run it comes from."""
    run = _run(command)
    folder = folder or RESULTS
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps([{**row, "run": run} for row in rows], indent=1) + "\n", "utf-8")
    return path


def read(name: str) -> list[Row]:
    """The rows of `results/<name>.json`; none where it was never measured."""
    path = RESULTS / f"{name}.json"
    return list(json.loads(path.read_text("utf-8"))) if path.is_file() else []


def _run(command: str) -> Row:
    return {
        "command": command,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _git("rev-parse", "--short", "HEAD") + ("+changes" if _git("status", "--porcelain") else ""),
        "cpu": _cpu(),
        "cores": cores(),
        "versions": {"python": platform.python_version()} | _versions(),
    }


def _versions() -> dict[str, str]:
    """Of the packages that are installed: a machine has onnxruntime for its CPU or for its GPU."""
    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=RESULTS.parent, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=False
    )
    return done.stdout.strip() or ("unknown" if done.returncode else "")


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
