"""A build whose models are stand-ins without weights, and a Triton that serves it on free ports."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest
from PIL import Image
from servers import READY_S, server_of

from glmserve.checkpoint import PROCESSOR_FILES
from glmserve.contract import DECODER_MODEL, VISION_MODEL, render_config
from glmserve.manifest import CANARY_FOLDER, CHECKPOINT_FOLDER, REPOSITORY_FOLDER, Manifest
from launcher.triton_server import TritonServer

HERE = Path(__file__).parent
DEMO = HERE.parents[1] / "demo" / "checkpoint"


@pytest.fixture(scope="session")
def stand_in_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    (folder / CHECKPOINT_FOLDER).mkdir()
    for name in (*PROCESSOR_FILES, "generation_config.json"):
        shutil.copy(DEMO / name, folder / CHECKPOINT_FOLDER / name)
    (folder / CANARY_FOLDER).mkdir()
    Image.new("RGB", (112, 112), "red").save(folder / CANARY_FOLDER / "picture.png")
    canary = {"prompt": 'What\'s in 100 % of "it"?', "answer": None}
    (folder / CANARY_FOLDER / "canary.json").write_text(json.dumps(canary), "utf-8")
    for model in (DECODER_MODEL, VISION_MODEL):
        version = folder / REPOSITORY_FOLDER / model / "1"
        version.mkdir(parents=True)
        (version.parent / "config.pbtxt").write_text(render_config(model), "utf-8")
        shutil.copy(HERE / "models" / f"{model}.py", version / "model.py")
    Manifest.describe(folder, "recipe", "stand-in", "fp32", "cpu").write(folder)
    return folder


@pytest.fixture(scope="session")
def triton(stand_in_build: Path) -> Generator[TritonServer]:
    with server_of(stand_in_build / REPOSITORY_FOLDER) as server:
        server.wait_ready(READY_S)
        yield server
