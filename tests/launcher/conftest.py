"""A build whose models are stand-ins without weights, the wrapper around one of them for real, and a Triton for it."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from pathlib import Path

import pytest
from servers import READY_S, server_of
from stand_in_build import describe_again, write_processor_and_canary

from glmserve.build.manifest import REPOSITORY_FOLDER
from glmserve.contract import MODELS, WHOLE_MODEL, render_config
from launcher.triton_server import TritonServer

HERE = Path(__file__).resolve().parent
OURS = HERE.parents[1] / "model_repository"


@pytest.fixture(scope="session")
def stand_in_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    write_processor_and_canary(folder, 'What\'s in 100 % of "it"?', None)
    for model in MODELS:
        version = folder / REPOSITORY_FOLDER / model / "1"
        version.mkdir(parents=True)
        (version.parent / "config.pbtxt").write_text(render_config(model), "utf-8")
        stand_in = HERE / "models" / f"{model}.py"
        shutil.copy(OURS / model / "1" / "model.py" if model == WHOLE_MODEL else stand_in, version / "model.py")
    describe_again(folder)
    return folder


@pytest.fixture(scope="session")
def triton(stand_in_build: Path) -> Generator[TritonServer]:
    with server_of(stand_in_build / REPOSITORY_FOLDER) as server:
        server.wait_ready(READY_S)
        yield server
