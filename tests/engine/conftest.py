"""What several tests of the engine start from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from glmserve.engine.grammars.compiler import GrammarCompiler
from glmserve.model.config import Checkpoint

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"


@pytest.fixture(scope="module")
def compiler() -> Iterator[GrammarCompiler]:
    """For the demo's vocabulary; it tries grammars in a process of its own."""
    checkpoint = Checkpoint.read(DEMO)
    made = GrammarCompiler(DEMO / "tokenizer.json", checkpoint.text.vocabulary, checkpoint.eos_token_ids)
    yield made
    made.close()
