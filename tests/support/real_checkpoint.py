"""Where the real model's configuration lies, and its tokenizer, for tests that need them and are skipped without."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from glmserve.model.tokenizer import Tokenizer

REAL = Path(__file__).resolve().parents[3] / "shared" / "glm-4.6v-flash"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real model's configuration is not beside the project")


@cache
def real_tokenizer() -> Tokenizer:
    """The real model's tokenizer, which takes a second to read: once for all tests of a process."""
    return Tokenizer.read(REAL)
