"""Where the real model's configuration lies, for tests that need it and are skipped without it."""

from __future__ import annotations

from pathlib import Path

import pytest

REAL = Path(__file__).resolve().parents[3] / "shared" / "glm-4.6v-flash"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real model's configuration is not beside the project")
