"""Real servers for end-to-end tests: Triton on a build, the gateway before it, and a client's view of both."""

from __future__ import annotations

import base64
import io
import json
import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from eventually import eventually
from PIL import Image

from bench.ports import free_port
from glmserve.build.manifest import REPOSITORY_FOLDER
from launcher.gateway_server import GatewayServer
from launcher.triton_server import TritonServer

READY_S = 90.0
ANSWER_S = 90.0


@dataclass
class Service:
    """A running service and what can be asked of it."""

    triton: TritonServer
    gateway: GatewayServer

    def ask(self, image: Image.Image | bytes, prompt: str, **options: Any) -> dict[str, Any]:
        """The body of a 200; anything else raises HTTPError."""
        data = image if isinstance(image, bytes) else png(image)
        return self.post({"image": base64.b64encode(data).decode(), "prompt": prompt, **options})

    def post(self, body: Any) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.gateway.url}/v1/chat/vision", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=ANSWER_S) as reply:
            return dict(json.load(reply))

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(f"{self.gateway.url}{path}", timeout=ANSWER_S) as reply:
                return reply.status, json.load(reply)
        except HTTPError as error:
            with error:
                return error.code, json.load(error)

    def metric(self, name: str) -> float:
        return metric(self.triton, name)


@contextmanager
def serving(build: Path) -> Iterator[Service]:
    """Triton and the gateway on free ports, ready to answer."""
    with triton_on(build) as triton, gateway_on(build, triton.grpc_url) as gateway:
        gateway.wait_ready(READY_S)
        yield Service(triton, gateway)


@contextmanager
def gateway_on(build: Path, triton_url: str) -> Iterator[GatewayServer]:
    """A gateway on a free port that counts none of the tests' requests: they all come from this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLM_GATEWAY_EXEMPT_LOOPBACK", "true")
        gateway = GatewayServer(build, triton_url, "127.0.0.1", free_port())
        gateway.start()
    try:
        yield gateway
    finally:
        gateway.stop()


@contextmanager
def triton_on(build: Path, require_certificate: bool = True) -> Iterator[TritonServer]:
    ports = free_port(), free_port(), free_port()
    with TritonServer(build / REPOSITORY_FOLDER, *ports, require_certificate=require_certificate) as triton:
        triton.wait_ready(READY_S)
        assert eventually(lambda: _shows_metrics(triton)), "ready, and its metrics' port still closed"
        yield triton


def _shows_metrics(triton: TritonServer) -> bool:
    """Triton opens this port last, a moment after it calls itself ready."""
    try:
        with urllib.request.urlopen(triton.metrics_url, timeout=10):
            return True
    except OSError:
        return False


def metric(triton: TritonServer, name: str) -> float:
    """The value of one of the engine's metrics."""
    with urllib.request.urlopen(triton.metrics_url, timeout=10) as reply:
        found = re.search(rf"^{name} ([0-9.e+]+)$", reply.read().decode(), re.MULTILINE)
    assert found, name
    return float(found.group(1))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
