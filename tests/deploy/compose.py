"""docker-compose.yml as Docker Compose itself reads it, with every profile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROFILES = ("gpu", "cpu", "tools", "monitoring")
_BIN = Path(sys.executable).parent
BUILD = "0123456789abcdef"


def tool(name: str) -> str:
    """A program that a package of requirements/test.txt brings."""
    return str(_BIN / name)


@cache
def resolved(*profiles: str, env_file: Path | None = None) -> dict[str, Any]:
    """`docker compose config`: validated against the Compose specification, anchors and variables put in.

    `env_file` stands for the `.env` of whoever deploys.
    """
    flags = [word for profile in profiles or PROFILES for word in ("--profile", profile)]
    flags += ["--env-file", str(env_file or os.devnull)]
    command = [tool("docker-compose"), *flags, "config", "--format", "json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GLM_")}
    environment |= {"BUILD": BUILD, "COMPOSE_PROFILES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def services(*profiles: str, env_file: Path | None = None) -> dict[str, dict[str, Any]]:
    return dict(resolved(*profiles, env_file=env_file)["services"])
