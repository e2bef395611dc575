"""Checkpoints that are published quantised are exported and served, and answer what the demo answers."""

from __future__ import annotations

import base64
import json
from contextlib import closing
from pathlib import Path

import pytest
from published_demo import published_demo
from rich.console import Console
from serving import triton_on

from export.build.pipeline import build
from gateway.app import create_app
from gateway.settings import GatewaySettings
from gateway.triton.grpc_client import TritonBackend
from gateway.triton.load_balancer import LoadBalancer
from glmserve.system.bundled_files import DEMO_CHECKPOINT

pytestmark = pytest.mark.triton
PICTURE = DEMO_CHECKPOINT / "golden" / "canary.png"
CANARY = json.loads((DEMO_CHECKPOINT / "golden" / "canary.json").read_text("utf-8"))
SEEN = [" ".join(thing.split()[:2]) for thing in CANARY["answer"].lower().split(", ")]
"""What is in it, such as "red cross", without the places."""


@pytest.mark.parametrize("name", ["w4a16", "gptq", "awq", "gguf-q4_k"])
def test_it_is_served_as_published_and_sees_the_picture(name: str, tmp_path: Path) -> None:
    folder = build(published_demo(name, tmp_path / "checkpoint"), tmp_path / "builds", Console(quiet=True), None)
    with (
        triton_on(folder, require_certificate=False) as triton,
        closing(LoadBalancer(triton.grpc_url, lambda url: TritonBackend(url, 10.0))) as pool,
    ):
        client = create_app(GatewaySettings(build=folder), pool).test_client()
        body = {
            "image": base64.b64encode(PICTURE.read_bytes()).decode(),
            "prompt": CANARY["prompt"],
            "temperature": 0,
        }
        answer = client.post("/v1/chat/vision", json=body).get_json()
    assert answer["success"] and all(thing in answer["result"].lower() for thing in SEEN), answer
