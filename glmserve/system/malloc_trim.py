"""Gives freed memory back to the system: a tokenizer of 150,000 words leaves 200 MB that are free but still ours."""

from __future__ import annotations

import ctypes


def give_back_freed() -> None:
    """Does nothing where the C library is not glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
