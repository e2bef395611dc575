"""Asks the gateway and the engine, before anything starts, whether they can read their settings."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_PROGRAMS = (("gateway", "check"), ("glmserve.engine",))
_WAIT_S = 60.0
_INSTEAD = {
    "GLM_GATEWAY_BIND": "HOST= and PORT=",
    "GLM_GATEWAY_TRITON_URL": "TRITON_GRPC_PORT=",
    "GLM_GATEWAY_BUILD": "BUILD=",
}
"""What the launcher chooses for the gateway, and how to have it chosen otherwise."""


class WrongSettings(Exception):
    """Something in the environment is no setting, or not what a setting must be; one line a fault."""


def checked_settings(bind: str) -> dict[str, str]:
    """The gateway's settings that are not the defaults, passwords left out; `bind` is the address it will listen on.

    Raises WrongSettings, for what would be overwritten too.
    """
    faults = [
        f"{name}={os.environ[name]}: `make serve` chooses this itself; use {instead} instead."
        for name, instead in _INSTEAD.items()
        if name in os.environ
    ]
    gateway, engine = _answers({**os.environ, "GLM_GATEWAY_BIND": bind})
    faults += [said for code, _, said in (gateway, engine) if code != 0]
    if faults:
        raise WrongSettings("\n".join(faults))
    return dict(line.split("=", 1) for line in gateway[1].splitlines())


def _answers(environment: Mapping[str, str]) -> list[tuple[int, str, str]]:
    """Each program's exit code, output and complaints; all run at once, since most of it is importing."""
    running = [
        subprocess.Popen(
            [sys.executable, "-m", *program],
            env=environment,
            cwd=Path(__file__).resolve().parents[1],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for program in _PROGRAMS
    ]
    try:
        said = [process.communicate(timeout=_WAIT_S) for process in running]
    finally:
        for process in running:
            process.kill()  # when we were told to end
            process.wait()
    return [(process.returncode, out, err.strip()) for process, (out, err) in zip(running, said, strict=True)]
