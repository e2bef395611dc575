"""Which build is served: one that was named, a checkpoint's, the published one or the demo's, and none in doubt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from glmserve.manifest import CERTIFICATE_FILE, CURRENT
from launcher import builds
from launcher.builds import DEMO, NoBuild, Unverified, choose


@pytest.fixture
def out(stand_in_build: Path, tmp_path: Path) -> Path:
    """A folder of builds in which `old` was published."""
    for name in ("old", "new"):
        shutil.copytree(stand_in_build, tmp_path / "builds" / name)
    (tmp_path / "builds" / CURRENT).symlink_to("old")
    return tmp_path / "builds"


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch, out: Path) -> list[tuple[Path, str]]:
    """What would have been exported; it comes out as `new`."""
    asked: list[tuple[Path, str]] = []

    def export(checkpoint: Path, _: Path, precision: str) -> Path:
        asked.append((checkpoint, precision))
        return out / "new"

    monkeypatch.setattr(builds, "exported_build", export)
    return asked


def test_the_published_build_is_served_when_nothing_is_named(out: Path, exported: list) -> None:
    choice = choose(None, None, None, out, True)
    assert choice.folder == out / "old" and choice.warning is None and not exported
    assert "published" in choice.origin and str(out / CURRENT) in choice.origin


def test_the_demo_is_served_where_nothing_was_published(out: Path, exported: list) -> None:
    (out / CURRENT).unlink()
    choice = choose(None, None, None, out, True)
    assert exported == [(DEMO, "fp32")] and "nothing was published" in choice.origin


def test_what_is_named_comes_before_what_was_published(out: Path, exported: list, tmp_path: Path) -> None:
    assert choose(out / "new", None, None, out, True).folder == out / "new" and not exported
    choose(None, tmp_path / "checkpoint", None, out, True)
    choose(None, None, "int8", out, True)
    assert exported == [(tmp_path / "checkpoint", "fp32"), (DEMO, "int8")]


def test_a_published_build_that_is_gone_is_named(out: Path) -> None:
    shutil.rmtree(out / "old")
    with pytest.raises(NoBuild, match="old"):
        choose(None, None, None, out, True)


def test_a_named_checkpoint_without_a_certificate_is_served_with_a_warning(
    out: Path, exported: list, tmp_path: Path
) -> None:
    (out / "new" / CERTIFICATE_FILE).unlink()
    choice = choose(None, tmp_path / "checkpoint", None, out, True)
    assert exported and choice.warning and "has no certificate" in choice.warning
    with pytest.raises(Unverified, match="has no certificate"):
        choose(out / "new", None, None, out, True)
    assert choose(out / "new", None, None, out, False).warning


def test_a_certificate_that_does_not_hold_is_refused_by_name(out: Path, exported: list, tmp_path: Path) -> None:
    path = out / "new" / CERTIFICATE_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"passed": False}))
    for build, checkpoint in ((out / "new", None), (None, tmp_path / "checkpoint")):
        with pytest.raises(Unverified, match=r"certificate\.json of build .* says that it does not compute"):
            choose(build, checkpoint, None, out, True)
