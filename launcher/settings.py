"""Asks the gateway and the engine, before anything starts, whether they can read their settings."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping

_PROGRAMS = (("gateway", "check"), ("glmserve.engine",))
_TIMEOUT_S = 60.0
_CHOSEN_BY = {
    "GLM_GATEWAY_BIND": "HOST= and PORT=",
    "GLM_GATEWAY_TRITON_URL": "TRITON_GRPC_PORT=",
    "GLM_GATEWAY_BUILD": "BUILD=",
}
"""The gateway's settings that the launcher sets itself, and the launcher's settings that they follow."""


class WrongSettings(Exception):
    """A setting in the environment is unknown or invalid, one line each, or they could not be checked in time."""


def checked_settings(bind: str) -> dict[str, str]:
    """The gateway's settings that differ from the defaults, without passwords; `bind` is the address it will listen on.

    Raises WrongSettings, also for a setting that the launcher would overwrite.
    """
    faults = [
        f"{name}={os.environ[name]}: `make serve` sets this itself; use {instead} instead."
        for name, instead in _CHOSEN_BY.items()
        if name in os.environ
    ]
    gateway, engine = _check({**os.environ, "GLM_GATEWAY_BIND": bind})
    faults += [errors for code, _, errors in (gateway, engine) if code != 0]
    if faults:
        raise WrongSettings("\n".join(faults))
    return dict(line.split("=", 1) for line in gateway[1].splitlines())


def _check(environment: Mapping[str, str]) -> list[tuple[int, str, str]]:
    """Each program's exit code, output and errors. They run together, since most of their time goes into imports."""
    running = [
        subprocess.Popen(
            [sys.executable, "-m", *program],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for program in _PROGRAMS
    ]
    give_up = time.monotonic() + _TIMEOUT_S
    try:
        texts = [process.communicate(timeout=max(give_up - time.monotonic(), 0.1)) for process in running]
    except subprocess.TimeoutExpired:
        raise WrongSettings(
            f"Checking the settings took longer than {_TIMEOUT_S:g} s, so nothing was started: "
            "the machine may be short of processor time or memory. Try again."
        ) from None
    finally:
        for process in running:
            with process:  # waits, and closes its pipes
                process.kill()  # where a signal or the timeout came first
    return [(process.returncode, out, err.strip()) for process, (out, err) in zip(running, texts, strict=True)]
