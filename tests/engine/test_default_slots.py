"""An engine with default settings opens on a machine that has no room for the default number of slots."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from shared_builds import DEMO, build_of_demo

from glmserve.build.manifest import decoder_in
from glmserve.engine.memory_plan import decoders_files, memory_plan, weight_bytes
from glmserve.engine.runtime.device import Host
from glmserve.engine.server import EngineServer
from glmserve.engine.settings import EngineSettings
from glmserve.model.config import Checkpoint

pytestmark = [pytest.mark.build, pytest.mark.slow]
FOUR, ONE = 4, 1


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The demo's decoder, on a machine that holds four slots with one warm row, and no more."""
    folder = decoder_in(build_of_demo()).parent
    settings = EngineSettings(device="cpu", slots=FOUR, warm_rows=ONE)
    plan = memory_plan(Checkpoint.read(DEMO), settings, weight_bytes(decoders_files(folder)), 4, 0)
    vision = sum(path.stat().st_size for path in folder.glob("vision.*"))
    memory = int((plan.total + vision) / settings.memory_utilization) + 1
    monkeypatch.setattr(Host, "total_memory_bytes", lambda _: memory)
    yield folder


def _opened(folder: Path) -> EngineServer:
    return EngineServer.open(folder, lambda _: np.zeros(0), lambda _metric, _amount: None)


def test_it_takes_the_slots_that_fit_and_says_so(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        _opened(folder).close()
    assert "the KV of 4 of 16 slots and 1 of 4 warm rows" in caplog.text
