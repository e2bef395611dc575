"""A build whose models are stand-ins without weights, and a Triton that serves it on free ports."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from pathlib import Path

import pytest
from servers import READY_S, server_of
from stand_in_build import write_certificate, write_processor_and_canary

from glmserve.contract import DECODER_MODEL, VISION_MODEL, render_config
from glmserve.manifest import REPOSITORY_FOLDER, Manifest
from launcher.triton_server import TritonServer

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def stand_in_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    write_processor_and_canary(folder, 'What\'s in 100 % of "it"?', None)
    for model in (DECODER_MODEL, VISION_MODEL):
        version = folder / REPOSITORY_FOLDER / model / "1"
        version.mkdir(parents=True)
        (version.parent / "config.pbtxt").write_text(render_config(model), "utf-8")
        shutil.copy(HERE / "models" / f"{model}.py", version / "model.py")
    Manifest.describe(folder, "recipe", "stand-in", "fp32", "cpu").write(folder)
    write_certificate(folder)
    return folder


@pytest.fixture(scope="session")
def triton(stand_in_build: Path) -> Generator[TritonServer]:
    with server_of(stand_in_build / REPOSITORY_FOLDER) as server:
        server.wait_ready(READY_S)
        yield server
