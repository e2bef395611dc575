"""Asks the echoing gateway whatever its OpenAPI document allows, and much that it does not: `make fuzz`."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from live_gateway import live_gateway
from stand_in_build import write_stand_in

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
HERE = Path(__file__).resolve().parent
_TIMEOUT_S = 280
_DEFAULT_CASES = 2000
_EXAMPLES = 100


class FuzzFailed(AssertionError):
    """A case broke a promise; the message is Schemathesis' report, with a command that repeats the case."""


def fuzz(url: str, folder: Path, examples: int, seed: int) -> int:
    """How many cases were sent and kept every promise; raises FuzzFailed. `folder` is where Schemathesis may write."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--phases", "coverage,fuzzing"]
    command += ["--checks", ",".join(CHECKS), "--max-examples", str(examples), "--seed", str(seed), "--no-color"]
    command += ["--suppress-health-check", "all", "--generation-database", "none"]  # a slow machine is no failure
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "SCHEMATHESIS_HOOKS": "fuzz_hooks",
        "PYTHONPATH": str(HERE),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(HERE.parents[1] / ".hypothesis"),  # has the tables of Unicode already
    }  # and no more: each request looks through all of them for proxies
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    found = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    if done.returncode or not found or found[1] != found[2]:
        raise FuzzFailed(done.stdout + done.stderr)
    return int(found[1])


def stand_in_build(folder: Path) -> Path:
    """As much of a build as a gateway looks at."""
    write_stand_in(folder, "What is it?", None)
    return folder


def main() -> None:
    """Seed after seed until there were as many cases as were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=int, nargs="?", default=_DEFAULT_CASES)
    wanted, cases, seed = parser.parse_args().cases, 0, 0
    with (
        tempfile.TemporaryDirectory() as build,
        tempfile.TemporaryDirectory() as folder,
        live_gateway(stand_in_build(Path(build))) as url,
    ):
        while cases < wanted:
            cases += fuzz(url, Path(folder), _EXAMPLES, seed)
            seed += 1
            print(f"{cases} cases, every answer as promised", flush=True)


if __name__ == "__main__":
    main()
