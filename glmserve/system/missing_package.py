"""What a command says instead of a traceback where its packages are not installed."""

from __future__ import annotations


def not_installed(error: ModuleNotFoundError) -> str:
    """Names the package that is missing, and the environment that has it."""
    return (
        f"This Python has no package {error.name}. Use the environment that `make serve` or `make test` sets up: "
        "`source .venv/bin/activate`, or `.venv/bin/python -m …`."
    )
