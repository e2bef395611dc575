"""The demo, exported and served for real, once for all end-to-end tests."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports import free_port
from rich.console import Console
from serving import READY_S, Service, serving, triton_on

from export.build.pipeline import build
from glmserve.model.tokenizer import Tokenizer
from launcher.gateway_server import GatewayServer
from launcher.probe import get
from launcher.triton_server import TritonServer

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"


@pytest.fixture(scope="session")
def demo_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(DEMO, tmp_path_factory.mktemp("builds"), Console(quiet=True))


@pytest.fixture(scope="session")
def service(demo_build: Path) -> Iterator[Service]:
    with serving(demo_build) as running:
        yield running


@pytest.fixture(scope="session")
def endless_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo with an eos id that it never says, so that an answer runs until somebody ends it."""
    checkpoint = Path(shutil.copytree(DEMO, tmp_path_factory.mktemp("endless") / "checkpoint"))
    never = Tokenizer.read(checkpoint).control_tokens["<|end_of_audio|>"]
    (checkpoint / "generation_config.json").write_text(json.dumps({"eos_token_id": [never]}), "utf-8")
    return build(checkpoint, checkpoint.parent / "builds", Console(quiet=True))


@pytest.fixture(scope="session")
def endless(endless_build: Path) -> Iterator[TritonServer]:
    with triton_on(endless_build) as triton:
        yield triton


@pytest.fixture(scope="session")
def endless_gateway(endless_build: Path, endless: TritonServer) -> Iterator[GatewayServer]:
    """Alive, but never ready: the canary is answered without an end."""
    with GatewayServer(endless_build, endless.grpc_url, "127.0.0.1", free_port()) as gateway:
        give_up = time.monotonic() + READY_S
        while get("127.0.0.1", int(gateway.url.rpartition(":")[2]), "/health/live", 1.0) is None:
            assert time.monotonic() < give_up
            time.sleep(0.05)
        yield gateway
