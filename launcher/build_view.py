"""What tritonserver is pointed at: a fresh folder of links that holds what a build's manifest names, and nothing else.

Triton's stub imports whatever lies beside model.py and writes `__pycache__` there, whatever Python's own variables say.
In a folder of its own, made anew for each start, it finds no byte code and no module that the manifest does not name.
"""

from __future__ import annotations

from pathlib import Path

from glmserve.build.manifest import (
    CANARY_FOLDER,
    CERTIFICATE_FILE,
    CHECKPOINT_FOLDER,
    MANIFEST_FILE,
    REPOSITORY_FOLDER,
    Manifest,
    sha256_of,
)
from glmserve.errors import BadArtifact

_BESIDE = (MANIFEST_FILE, CERTIFICATE_FILE, CHECKPOINT_FOLDER, CANARY_FOLDER)
_RUN_BEFORE_ANY_CHECK = (".py", ".pbtxt")
"""What Triton reads before our own code can check the build."""


def lay_out(build: Path, folder: Path) -> Path:
    """Links a build's files into the new `folder`; the model repository in it.

    Raises BadArtifact for a build whose manifest cannot be read, which lacks a file, or whose code was altered.
    """
    manifest = Manifest.read(build)
    (folder / REPOSITORY_FOLDER).mkdir(parents=True)
    for name in _files(build, manifest):
        source = build / name
        if not source.is_file():
            raise BadArtifact(f"Build {manifest.digest} lacks {name}.")
        wanted = manifest.files.get(name)
        if source.suffix in _RUN_BEFORE_ANY_CHECK and wanted is not None and sha256_of(source) != wanted:
            raise BadArtifact(f"{name} of build {manifest.digest} was altered: its SHA-256 is not the manifest's.")
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source.resolve())
    for name in _BESIDE:
        if (build / name).exists():
            (folder / name).symlink_to((build / name).resolve())
    return folder / REPOSITORY_FOLDER


def _files(build: Path, manifest: Manifest) -> list[str]:
    """The paths of all that Triton may load. A TensorRT engine's folder, which is links to a build, has a model beside
    the build's own."""
    named = [name for name in manifest.files if name.startswith(f"{REPOSITORY_FOLDER}/")]
    if not (build / MANIFEST_FILE).is_symlink():
        return named
    own = [path for path in (build / REPOSITORY_FOLDER).rglob("*") if path.is_file() and not path.is_symlink()]
    made = [str(path.relative_to(build)) for path in own]
    replaced = {name.split("/")[1] for name in made}
    return [*made, *(name for name in named if name.split("/")[1] not in replaced)]
