"""What a gateway's process loads when it starts: of Triton's two clients, only the one that its address asks for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

STARTED = "import sys; from gateway import wsgi; wsgi.application(); print('gevent' in sys.modules)"


@pytest.mark.parametrize(("scheme", "loads_gevent"), [("grpc", False), ("http", True)])
def test_only_plain_http_loads_what_it_needs(build: Path, scheme: str, loads_gevent: bool) -> None:
    settings = {"GLM_GATEWAY_BUILD": str(build), "GLM_GATEWAY_TRITON_URL": f"{scheme}://127.0.0.1:1"}
    process = subprocess.run(
        [sys.executable, "-c", STARTED],
        env={**os.environ, **settings},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert process.stdout.splitlines()[-1] == str(loads_gevent)
