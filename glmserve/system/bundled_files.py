"""Finds the files that come with the code: the sources of the Triton models, and the demo checkpoint."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]  # the checkout, or site-packages, where a wheel puts the same folders
MODEL_REPOSITORY = _ROOT / "model_repository"
DEMO_CHECKPOINT = _ROOT / "demo" / "checkpoint"
DEMO = "demo"
"""Names the demo checkpoint wherever a checkpoint is asked for: a user need not know where it is installed."""
