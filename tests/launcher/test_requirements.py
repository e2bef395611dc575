"""What is installed is pinned, once, and the same everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "requirements"


def pins(name: str) -> dict[str, str]:
    lines = [line for line in (FOLDER / name).read_text().splitlines() if line and not line.startswith("#")]
    split = [line.split("==") for line in lines]
    assert all(len(parts) == 2 for parts in split), f"{name} holds a line that is no pin"
    return {package.split("[")[0].lower().replace("_", "-"): version for package, version in split}


@pytest.mark.parametrize("name", ["serve.txt", "test.txt"])
def test_every_direct_dependency_is_pinned_to_what_was_tested(name: str) -> None:
    assert pins(name).items() <= pins("constraints.txt").items()


def test_serving_needs_neither_torch_nor_transformers() -> None:
    assert not {"torch", "transformers"} & set(pins("serve.txt"))


def test_the_gpu_build_of_onnxruntime_has_the_version_of_the_other() -> None:
    assert pins("gpu.txt")["onnxruntime-gpu"] == pins("serve.txt")["onnxruntime"]
