"""A manifest is read only where it says what one can say, and a build that holds more than it names is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from export.precision import KvPrecision, Precision, Target
from glmserve.build.manifest import KV_PRECISIONS, MANIFEST_FILE, PRECISIONS, TARGETS, Manifest, sha256_of
from glmserve.errors import BadArtifact


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A folder with one file in each place that a build has."""
    for name in ("checkpoint/config.json", "canary/canary.json", "model_repository/glm4v/1/model.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(name)
    Manifest.describe(tmp_path, "recipe", "source", "fp32", "cpu").write(tmp_path)
    return tmp_path


def _rewrite(build: Path, **changes: object) -> None:
    values = json.loads((build / MANIFEST_FILE).read_text("utf-8"))
    (build / MANIFEST_FILE).write_text(json.dumps(values | changes), "utf-8")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("files", []),
        ("files", None),
        ("files", {"a": 1}),
        ("precision", "int9"),
        ("precision", None),
        ("target", "tpu"),
        ("kv", 3),
        ("digest", 5),
        ("recipe", []),
        ("source", None),
    ],
)
def test_a_field_that_cannot_be_so_is_named(build: Path, field: str, value: object) -> None:
    _rewrite(build, **{field: value})
    with pytest.raises(BadArtifact, match=rf"manifest\.json cannot be read as a manifest: it has a wrong {field}\."):
        Manifest.read(build)


def test_what_a_manifest_may_say_is_what_an_export_can_choose() -> None:
    assert (tuple(Precision), tuple(Target), tuple(KvPrecision)) == (PRECISIONS, TARGETS, KV_PRECISIONS)


def test_weights_altered_together_with_their_entry_are_found(build: Path) -> None:
    file = "checkpoint/config.json"
    (build / file).write_text("other")
    manifest = Manifest.read(build)
    _rewrite(build, files=manifest.files | {file: sha256_of(build / file)})
    with pytest.raises(BadArtifact, match=rf"manifest\.json of build {manifest.digest} was altered"):
        Manifest.read(build).check(build)


def test_an_entry_that_was_taken_out_is_missed(build: Path) -> None:
    files = Manifest.read(build).files
    _rewrite(build, files={name: digest for name, digest in files.items() if "model.py" not in name})
    with pytest.raises(BadArtifact, match="was altered"):
        Manifest.read(build).check(build)


@pytest.mark.parametrize("is_link", [False, True])
def test_a_model_that_triton_would_load_besides_is_named(build: Path, tmp_path_factory, is_link: bool) -> None:
    folder = build / "model_repository" / "other"
    if is_link:
        folder.symlink_to(tmp_path_factory.mktemp("other"))
    else:
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "model.py").write_text("")
    with pytest.raises(BadArtifact, match=r"model_repository/other.* is no part of it"):
        Manifest.read(build).check(build)


def test_what_python_and_file_systems_leave_there_is_no_matter(build: Path) -> None:
    version = build / "model_repository" / "glm4v" / "1"
    (version / "__pycache__").mkdir()
    (version / "__pycache__" / "model.cpython-311.pyc").write_bytes(b"")
    (version / ".nfs0123").write_bytes(b"")
    (build / "notes.txt").write_text("served since May")
    Manifest.read(build).check(build)
