"""The model repository says what the contract says, and errors cross the wire as they left."""

from __future__ import annotations

from pathlib import Path

import pytest

from glmserve import errors
from glmserve.contract import MODELS, render_config

REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"


@pytest.mark.parametrize("model", MODELS)
def test_the_kept_config_is_the_contracts(model: str) -> None:
    assert (REPOSITORY / model / "config.pbtxt").read_text() == render_config(model)


def test_nothing_else_lies_in_the_repository() -> None:
    """A stray folder, even a hidden one, keeps tritonserver from starting."""
    assert {path.name for path in REPOSITORY.iterdir()} == set(MODELS)


@pytest.mark.parametrize("model", MODELS)
def test_an_adapter_stays_thin(model: str) -> None:
    assert len((REPOSITORY / model / "1" / "model.py").read_text().splitlines()) <= 80


@pytest.mark.parametrize(
    "error",
    [
        errors.Overloaded("Full."),
        errors.PromptTooLong("9 tokens | too many."),
        errors.Cancelled("x"),
        errors.InvalidInput("No; never | at all.", "tools[1].function.parameters"),
    ],
)
def test_an_error_crosses_the_wire(error: errors.GlmServeError) -> None:
    found = errors.from_wire(errors.to_wire(error))
    assert type(found) is type(error) and found is not None and found.message == error.message
    assert getattr(found, "field", None) == getattr(error, "field", None)


def test_a_foreign_error_leaves_no_trace() -> None:
    assert errors.to_wire(RuntimeError("/secret/path 0xbeef")) == f"internal|{errors.GlmServeError().message}"
    assert errors.from_wire("Failed to open file | nothing of ours") is None
