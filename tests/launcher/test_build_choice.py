"""Which build is served: one that was named, a checkpoint's, the published one or the demo's, and none in doubt."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from glmserve.build.manifest import CERTIFICATE_FILE, CURRENT
from glmserve.system.bundled_files import DEMO
from launcher import builds
from launcher.builds import PRECISIONS, ExportFailed, NoBuild, UnclearChoice, Unverified, check_precision, choose


@pytest.fixture
def out(stand_in_build: Path, tmp_path: Path) -> Path:
    """A folder of builds in which `old` was published."""
    for name in ("old", "new"):
        shutil.copytree(stand_in_build, tmp_path / "builds" / name)
    (tmp_path / "builds" / CURRENT).symlink_to("old")
    return tmp_path / "builds"


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch, out: Path) -> list[tuple[str, str]]:
    """What would have been exported; it comes out as `new`."""
    asked: list[tuple[str, str]] = []

    def export(checkpoint: str, _: Path, precision: str) -> Path:
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
    assert exported == [(DEMO, "auto")] and "nothing was published" in choice.origin


def test_what_is_named_comes_before_what_was_published(out: Path, exported: list, tmp_path: Path) -> None:
    assert choose(str(out / "new"), None, None, out, True).folder == out / "new" and not exported
    choose(None, str(tmp_path / "checkpoint"), None, out, True)
    choose(None, DEMO, "int8", out, True)
    (out / CURRENT).unlink()
    choose(None, None, "int8", out, True)
    assert exported == [(str(tmp_path / "checkpoint"), "auto"), (DEMO, "int8"), (DEMO, "int8")]


def test_a_build_is_named_by_its_digest_or_by_its_folder(out: Path) -> None:
    assert choose("new", None, None, out, True).folder == choose(str(out / "new"), None, None, out, True).folder
    with pytest.raises(NoBuild, match=r"no build newer: .*export list"):
        choose("newer", None, None, out, True)


@pytest.mark.parametrize(("checkpoint", "precision"), [("/nope", None), (None, "int8"), ("/nope", "int9")])
def test_a_build_beside_what_to_export_is_refused(
    out: Path, exported: list, checkpoint: str | None, precision: str | None
) -> None:
    with pytest.raises(UnclearChoice, match=r"BUILD= .* CHECKPOINT= and PRECISION="):
        choose("new", checkpoint, precision, out, True)
    assert not exported


def test_a_precision_alone_does_not_push_the_published_build_aside(out: Path, exported: list) -> None:
    with pytest.raises(UnclearChoice, match=r"PRECISION=int8 .* published"):
        choose(None, None, "int8", out, True)
    assert not exported


def test_a_precision_that_does_not_exist_is_refused_and_the_others_are_named() -> None:
    with pytest.raises(UnclearChoice, match=r"^int7 is no precision; choose auto, fp32, fp16, int8 or int4\.$"):
        check_precision("int7")
    for precision in (None, "", "bf16", *PRECISIONS):  # the export says that bf16 needs a GPU
        check_precision(precision)


@pytest.mark.process
@pytest.mark.parametrize("name", ["zai-org/GLM-4.6V-Flash", "zai-org/GLM-4.6V-Flash@main"])
def test_a_checkpoint_may_be_a_name_on_the_hub(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The export downloads it; where it cannot, its own words say why."""
    monkeypatch.setattr(builds.sys, "executable", "/bin/false")
    with pytest.raises(ExportFailed, match=re.escape(name)):
        choose(None, name, None, tmp_path, True)


@pytest.mark.parametrize("name", ["/models/nowhere", "nowhere", "../nowhere", "demo/model.py", "bench/results"])
def test_what_is_neither_a_folder_nor_a_name_on_the_hub_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(NoBuild, match=r"CHECKPOINT= takes .* folder, or a name on the hub"):
        choose(None, name, None, tmp_path, True)


def test_a_published_build_that_is_gone_is_named(out: Path) -> None:
    shutil.rmtree(out / "old")
    with pytest.raises(NoBuild, match="old"):
        choose(None, None, None, out, True)


def test_a_named_checkpoint_without_a_certificate_is_served_with_a_warning(
    out: Path, exported: list, tmp_path: Path
) -> None:
    (out / "new" / CERTIFICATE_FILE).unlink()
    choice = choose(None, str(tmp_path / "checkpoint"), None, out, True)
    assert exported and choice.warning and "has no certificate" in choice.warning
    with pytest.raises(Unverified, match="has no certificate"):
        choose(str(out / "new"), None, None, out, True)
    assert choose(str(out / "new"), None, None, out, False).warning


def test_a_certificate_that_does_not_hold_is_refused_by_name(out: Path, exported: list, tmp_path: Path) -> None:
    path = out / "new" / CERTIFICATE_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"passed": False}))
    for build, checkpoint in ((str(out / "new"), None), (None, str(tmp_path / "checkpoint"))):
        with pytest.raises(Unverified, match=r"certificate\.json of build .* says that it does not compute"):
            choose(build, checkpoint, None, out, True)
