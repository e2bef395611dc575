"""/v1/models says whether somebody vouches for the build's answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from fake_backend import FakeBackend
from stand_in_build import write_certificate

from gateway.app import create_app
from gateway.settings import GatewaySettings
from glmserve.build.manifest import MANIFEST_FILE


def test_a_build_with_a_certificate_is_verified_and_one_without_is_not(build: Path, tmp_path: Path) -> None:
    certified = Path(shutil.copytree(build, tmp_path / "certified"))
    write_certificate(certified)
    for folder, is_verified in ((certified, True), (build, False)):
        client = create_app(GatewaySettings(build=folder), FakeBackend([])).test_client()
        assert client.get("/v1/models").get_json()["data"][0]["verified"] is is_verified


def test_the_adapters_that_are_merged_into_a_build_are_named(build: Path, tmp_path: Path) -> None:
    adapted = Path(shutil.copytree(build, tmp_path / "adapted"))
    manifest = json.loads((adapted / MANIFEST_FILE).read_text("utf-8"))
    named = manifest | {"adapters": [{"name": "one", "digest": "0a"}, {"name": "two", "digest": "0b"}]}
    (adapted / MANIFEST_FILE).write_text(json.dumps(named), "utf-8")
    for folder, names in ((adapted, ["one", "two"]), (build, [])):
        client = create_app(GatewaySettings(build=folder), FakeBackend([])).test_client()
        assert client.get("/v1/models").get_json()["data"][0]["adapters"] == names
