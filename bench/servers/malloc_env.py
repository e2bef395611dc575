"""Gives the measurements' own process Triton's malloc settings, since bare engines run in it."""

from __future__ import annotations

import json
import os
import sys

from glmserve.system import malloc

_BEFORE = "GLM_BENCH_BEFORE"
"""Tells the second start what the variables were before, so that other programs start with those."""


def start_again() -> None:
    """Starts this program anew with the variables of a Triton, which the C library reads only then; does nothing when
    called by that second start, whose children do not inherit them."""
    before = os.environ.pop(_BEFORE, None)
    if before is None:
        variables = malloc.variables(os.environ)
        known = {name: os.environ.get(name) for name in variables}
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **variables, _BEFORE: json.dumps(known)})
    for name, value in json.loads(before).items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
