"""Measurements run with Triton's variables for memory, and what they start runs without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from glmserve.system import malloc

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import json, os, sys
from bench.servers.malloc_env import start_again
start_again()
began_with = dict(line.split("=", 1) for line in open("/proc/self/environ").read().split("\\0") if line)
print(json.dumps([began_with, dict(os.environ), sys.argv[1:]]))
"""


def test_a_measurement_starts_again_with_tritons_variables_and_hands_on_what_was_there(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, "utf-8")
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "MALLOC_TRIM_THRESHOLD_": "1"}
    told = subprocess.check_output([sys.executable, program, "throughput", "--rounds", "2"], env=given, timeout=60)
    began_with, handed_on, arguments = json.loads(told)
    assert malloc.variables(given).items() <= began_with.items()
    assert {name: handed_on[name] for name in given} == given
    assert not malloc.variables({}).keys() & (handed_on.keys() - given.keys())
    assert arguments == ["throughput", "--rounds", "2"]
