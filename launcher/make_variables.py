"""Finds variables on make's command line that are almost those of `make serve`: make itself takes any name."""

from __future__ import annotations

import difflib
import re

SERVE_TAKES = (
    "HOST",
    "PORT",
    "TRITON_HTTP_PORT",
    "TRITON_GRPC_PORT",
    "TRITON_METRICS_PORT",
    "CHECKPOINT",
    "PRECISION",
    "BUILD",
    "DEVICES",
    "START_TIMEOUT_S",
)
_NEAR = 0.8


def misspelled(makeflags: str) -> list[str]:
    """A sentence for each variable of MAKEFLAGS that looks like a mistyped one of `make serve`; what looks like none
    (HF_TOKEN, OMP_NUM_THREADS) is for some other program."""
    sentences = []
    for word in re.split(r"(?<!\\)\s+", makeflags.partition("-- ")[2]):
        name, is_set, value = word.partition("=")
        if is_set and name not in SERVE_TAKES:
            near = difflib.get_close_matches(name.upper(), SERVE_TAKES, 1, cutoff=_NEAR)
            sentences += [f"{name}={value}: unknown variable; did you mean {meant}=?" for meant in near]
    return sentences
