"""A checkpoint named by its hub id is downloaded first; what the hub refuses is said in a sentence."""

from __future__ import annotations

import builtins
import errno
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from typer.testing import CliRunner

from export.checkpoint.hub import Source
from export.cli import app
from export.errors import DiskFull, DownloadFailed, Exit, MissingPackage
from glmserve.build.manifest import Manifest
from glmserve.errors import BadArtifact

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Stands in for `snapshot_download`: holds the demo's files and two that must not be fetched."""

    def __init__(self, cache: Path) -> None:
        self.folder = cache / "snapshots" / COMMIT
        self.asked: list[tuple[str, str | None]] = []

    def __call__(self, repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        self.asked.append((repo_id, revision))
        self.folder.mkdir(parents=True, exist_ok=True)
        names = [path.name for path in DEMO.iterdir() if path.is_file()] + ["pytorch_model.bin", "modeling.py"]
        for name in names:
            if any(fnmatch(name, pattern) for pattern in allow_patterns):
                shutil.copy(DEMO / name, self.folder / name)
        return str(self.folder)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    found = Hub(tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", found)
    return found


def test_a_hub_id_is_downloaded_and_its_commit_kept_in_the_build(hub: Hub, tmp_path: Path) -> None:
    command = ["build", "--checkpoint", "zai-org/GLM-4.6V-Flash@main", "--out", str(tmp_path / "builds")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert hub.asked == [("zai-org/GLM-4.6V-Flash", "main")]
    assert Manifest.read(Path(result.stdout.splitlines()[-1])).source == f"zai-org/GLM-4.6V-Flash@{COMMIT}"


def test_nothing_but_safetensors_and_descriptions_is_fetched(hub: Hub) -> None:
    Source.of("zai-org/GLM-4.6V-Flash")
    assert {path.suffix for path in hub.folder.iterdir()} == {".safetensors", ".json", ".jinja"}


def test_a_folder_wins_over_the_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(DEMO, tmp_path / "zai-org" / "GLM")
    monkeypatch.chdir(tmp_path)
    assert Source.of("zai-org/GLM") == Source(Path("zai-org/GLM"), "GLM")
    assert not hub.asked


def test_neither_a_folder_nor_an_id_is_refused() -> None:
    with pytest.raises(BadArtifact, match="no checkpoint folder /nowhere/at/all"):
        Source.of("/nowhere/at/all")


def _refused(kind: Callable[..., Exception]) -> Exception:
    return kind("no", response=httpx2.Response(404, request=httpx2.Request("GET", "https://hub.example")))


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (_refused(RepositoryNotFoundError), DownloadFailed, "no checkpoint a/b on the hub"),
        (_refused(GatedRepoError), DownloadFailed, "agreed to its terms"),
        (LocalEntryNotFoundError("no network"), DownloadFailed, "is the network there"),
        (httpx2.ConnectError("refused"), DownloadFailed, "is the network there"),
        (OSError(errno.ENOSPC, "full"), DiskFull, "HF_HOME"),
    ],
)
def test_what_the_hub_refuses_is_said(
    monkeypatch: pytest.MonkeyPatch, error: Exception, expected: type[Exception], words: str
) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(expected, match=words):
        Source.of("a/b")


def test_without_huggingface_hub_the_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("huggingface_hub"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingPackage, match="pip install huggingface_hub"):
        Source.of("a/b")
    result = CliRunner().invoke(app, ["build", "--checkpoint", "a/b", "--out", str(tmp_path)])
    assert result.exit_code == Exit.MISSING_PACKAGE
