"""Measures how soon `make serve` answers again: `python tests/faults/recovery.py [TIMES [BUILD [ONLY]]]`, or
`make chaos REPEAT=20`: each fault so many times in a row.

Prints a row for each fault, or for those whose name contains ONLY: median and worst seconds until the next answer.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support"), str(ROOT / "tests" / "launcher")]

from launched import launched  # noqa: E402
from running_service import UNLIMITED, RunningService  # noqa: E402

from glmserve.system.stopped import is_stopped  # noqa: E402

GIVE_UP_S = 60.0
FAULTS: dict[str, tuple[Callable[[RunningService], int], signal.Signals]] = {
    "glm4v's process: SIGKILL": (lambda service: service.stub(0), signal.SIGKILL),
    "glm4v's process: SIGABRT": (lambda service: service.stub(0), signal.SIGABRT),
    "glm4v's process: SIGSTOP": (lambda service: service.stub(0), signal.SIGSTOP),
    "glm4v_whole's process: SIGKILL": (lambda service: service.stub(-1), signal.SIGKILL),
    "tritonserver: SIGKILL": (lambda service: service.child("tritonserver"), signal.SIGKILL),
    "tritonserver: SIGABRT": (lambda service: service.child("tritonserver"), signal.SIGABRT),
    "tritonserver: SIGSTOP": (lambda service: service.child("tritonserver"), signal.SIGSTOP),
    "the only worker: SIGKILL": (RunningService.worker, signal.SIGKILL),
    "the only worker: SIGSTOP": (RunningService.worker, signal.SIGSTOP),
    "gunicorn's master: SIGKILL": (lambda service: service.child("gunicorn"), signal.SIGKILL),
    "gunicorn's master: SIGSTOP": (lambda service: service.child("gunicorn"), signal.SIGSTOP),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("times", type=int, nargs="?", default=5)
    parser.add_argument("build", nargs="?")
    parser.add_argument("only", nargs="?", default="")
    arguments = parser.parse_args()
    chosen = {name: fault for name, fault in FAULTS.items() if arguments.only in name}
    if not chosen or arguments.times < 1:
        parser.error(f"TIMES must be 1 or more, and ONLY stand in one of: {', '.join(FAULTS)}")
    build = {"BUILD": arguments.build} if arguments.build else {}
    print("| fault | median | worst |\n|---|---|---|", flush=True)
    for name, (process, number) in chosen.items():
        with launched(GLM_GATEWAY_WORKERS="1", **UNLIMITED, **build) as launcher:
            try:
                service = RunningService(launcher)
            except AssertionError:
                raise SystemExit(f"The service did not start.\n{launcher.said}") from None
            took = [_recovery_s(service, process(service), number) for _ in range(arguments.times)]
            launcher.process.send_signal(signal.SIGTERM)
            launcher.end()
        print(f"| {name} | {statistics.median(took):.1f} s | {max(took):.1f} s |", flush=True)


def _recovery_s(service: RunningService, victim: int, number: signal.Signals) -> float:
    began, parent = time.monotonic(), _parent(victim)
    os.kill(victim, number)
    is_stop = number is signal.SIGSTOP
    time.sleep(0.02 if is_stop else 0)  # until the last of its threads stands still
    while _parent(victim) == parent and (is_stopped(victim) or not is_stop) and time.monotonic() - began < GIVE_UP_S:
        time.sleep(0.02)  # nobody has noticed yet, and an answer says nothing
    _wait_for_an_answer(service, began)
    took = time.monotonic() - began
    time.sleep(3)
    _wait_for_an_answer(service, time.monotonic())
    return took


def _wait_for_an_answer(service: RunningService, began: float) -> None:
    while service.ask()[0] != 200:
        if time.monotonic() - began > GIVE_UP_S:
            raise SystemExit(f"No answer within {GIVE_UP_S:g} s.\n{service.launcher.said}")
        time.sleep(0.05)


def _parent(pid: int) -> str:
    """Nothing once it has been collected; another's when its own parent was killed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[1]
    except OSError:
        return ""


if __name__ == "__main__":
    main()
