"""The demo, exported and served for real, once for all end-to-end tests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import READY_S, Service, gateway_on, serving, triton_on
from shared_builds import build_of_endless

from launcher.gateway_server import GatewayServer
from launcher.probe import get
from launcher.triton_server import TritonServer


@pytest.fixture(scope="session")
def service(demo_build: Path) -> Iterator[Service]:
    with serving(demo_build) as running:
        yield running


@pytest.fixture(scope="session")
def endless_build() -> Path:
    return build_of_endless()


@pytest.fixture(scope="session")
def endless(endless_build: Path) -> Iterator[TritonServer]:
    with triton_on(endless_build) as triton:
        yield triton


@pytest.fixture(scope="session")
def endless_gateway(endless_build: Path, endless: TritonServer) -> Iterator[GatewayServer]:
    """Alive, but never ready: the canary is answered without an end."""
    with gateway_on(endless_build, endless.grpc_url) as gateway:
        give_up = time.monotonic() + READY_S
        while get("127.0.0.1", int(gateway.url.rpartition(":")[2]), "/health/live", 1.0) is None:
            assert time.monotonic() < give_up
            time.sleep(0.05)
        yield gateway
