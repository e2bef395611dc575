"""The demo, exported and served for real, once for all end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from serving import Service, serving

from export.build import build

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"


@pytest.fixture(scope="session")
def demo_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(DEMO, tmp_path_factory.mktemp("builds"), Console(quiet=True))


@pytest.fixture(scope="session")
def service(demo_build: Path) -> Iterator[Service]:
    with serving(demo_build) as running:
        yield running
