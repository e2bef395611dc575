"""Requests made from the OpenAPI document: none is our failure, and every answer is one that the document promises."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz import fuzz, stand_in_build
from live_gateway import live_gateway

EXAMPLES = 10  # for each address and way of going wrong; `make fuzz` sends more


def test_no_request_is_our_failure_and_every_answer_is_promised(tmp_path: Path) -> None:
    pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    build, folder = tmp_path / "build", tmp_path / "schemathesis"
    build.mkdir()
    folder.mkdir()
    with live_gateway(stand_in_build(build)) as url:
        assert fuzz(url, folder, EXAMPLES, seed=1) > 500
