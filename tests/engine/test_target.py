"""A build for another device than the engine runs on is refused at once, with both named and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from glmserve.build.manifest import DECODER_PATH, Manifest
from glmserve.engine.server import EngineServer
from glmserve.errors import BadArtifact


@pytest.mark.parametrize(("target", "device"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_build_for_another_device_names_both_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, device: str
) -> None:
    graph = tmp_path / DECODER_PATH
    graph.parent.mkdir(parents=True)
    graph.write_bytes(b"no graph: nothing of it may be read")
    Manifest.describe(tmp_path, "recipe", "demo", "fp16", target).write(tmp_path)
    monkeypatch.setenv("GLM_ENGINE_DEVICE", device)
    remedy = f"exported for {target}, and GLM_ENGINE_DEVICE is {device}: .*DEVICE={target}, or .* --target {device}"
    with pytest.raises(BadArtifact, match=remedy):
        EngineServer.open(graph.parent, lambda _arrays: pytest.fail("read a picture"), lambda _metric, _amount: None)
