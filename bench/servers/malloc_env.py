"""Gives the measurements' own process Triton's malloc settings, since bare engines run in it."""

from __future__ import annotations

import json
import os
import sys

from glmserve.system import malloc

_BEFORE = "GLM_BENCH_BEFORE"
"""Holds, for the second start, the variables as they were before, so that other programs start with those."""


def start_again() -> None:
    """Starts this program anew with the variables of a Triton, which the C library reads only then; the second start
    goes on, and its children do not inherit them."""
    before = os.environ.pop(_BEFORE, None)
    if before is None:
        known = json.dumps(dict(os.environ))
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **malloc.variables(os.environ), _BEFORE: known})
    for name in malloc.variables(json.loads(before)):
        os.environ.pop(name, None)
    os.environ.update(json.loads(before))
