"""What a build is: an immutable folder named by the digest of everything in it.

```
builds/current         a link to the build that is served, once one was published
builds/<digest>/
  manifest.json        this module's Manifest
  certificate.json     written by `export verify`, or by `export build` beside golden logits; see glmserve.certificate
  certificate.html     the same for a reader
  checkpoint/          config, preprocessor, tokenizer and template, copied
  canary/              picture.png and canary.json: a question and, where it is known, its answer
  model_repository/    what tritonserver is pointed at; graphs and weights lie beside the model.py that runs them
```
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from glmserve.contract import CONTRACT_VERSION, DECODER_MODEL, VISION_MODEL
from glmserve.errors import BadArtifact

CURRENT = "current"
MANIFEST_FILE = "manifest.json"
CERTIFICATE_FILE = "certificate.json"
CERTIFICATE_PAGE = "certificate.html"
CHECKPOINT_FOLDER = "checkpoint"
CANARY_FOLDER = "canary"
REPOSITORY_FOLDER = "model_repository"
DECODER_GRAPH = "decoder.onnx"
VISION_GRAPH = "vision.onnx"
DECODER_PATH = f"{REPOSITORY_FOLDER}/{DECODER_MODEL}/1/{DECODER_GRAPH}"
VISION_PATH = f"{REPOSITORY_FOLDER}/{DECODER_MODEL}/1/{VISION_GRAPH}"
TRITONS_VISION_PATH = f"{REPOSITORY_FOLDER}/{VISION_MODEL}/1/model.onnx"
"""Where Triton's onnxruntime backend finds the picture encoder."""
DIGEST_CHARS = 16
_NOT_CONTENT = (MANIFEST_FILE, CERTIFICATE_FILE, CERTIFICATE_PAGE)
_READERS = 4


@dataclass(frozen=True)
class Manifest:
    """A build's identity; `files` maps each path inside it to its SHA-256, `recipe` names checkpoint and exporter."""

    digest: str
    recipe: str
    contract_version: int
    source: str
    precision: str
    target: str
    kv: str
    files: dict[str, str]

    @staticmethod
    def describe(
        folder: Path,
        recipe: str,
        source: str,
        precision: str,
        target: str,
        kv: str = "same",
        known: Mapping[tuple[int, int], str] | None = None,
    ) -> Manifest:
        """The manifest of a folder whose files are complete; `source` is the checkpoint's name.

        `known` gives the SHA-256 of files that were read before, by device and inode, so that they are not read again.
        """
        known = known or {}
        files = {
            str(path.relative_to(folder)): known.get((path.stat().st_dev, path.stat().st_ino)) or sha256_of(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and _is_content(path.relative_to(folder))
        }
        identity = json.dumps([CONTRACT_VERSION, precision, target, kv, files], sort_keys=True)
        digest = hashlib.sha256(identity.encode()).hexdigest()[:DIGEST_CHARS]
        return Manifest(digest, recipe, CONTRACT_VERSION, source, precision, target, kv, files)

    @staticmethod
    def read(build: Path) -> Manifest:
        """The manifest of a build; raises BadArtifact when it is missing, broken or of another contract version."""
        try:
            values = json.loads((build / MANIFEST_FILE).read_text("utf-8"))
            manifest = Manifest(**values)
        except FileNotFoundError:
            raise BadArtifact(f"{build} is not a build: it has no {MANIFEST_FILE}.") from None
        except (OSError, ValueError, TypeError):
            raise BadArtifact(f"{build / MANIFEST_FILE} cannot be read as a manifest.") from None
        if manifest.contract_version != CONTRACT_VERSION:
            raise BadArtifact(
                f"Build {manifest.digest} is of contract version {manifest.contract_version}, "
                f"this server of version {CONTRACT_VERSION}: export the checkpoint again."
            )
        return manifest

    def write(self, build: Path) -> None:
        (build / MANIFEST_FILE).write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n", "utf-8")

    def check(self, build: Path) -> None:
        """Raises BadArtifact naming the first file that is missing or not what the manifest says."""
        for name in self.files:
            if not (build / name).is_file():
                raise BadArtifact(f"Build {self.digest} lacks {name}.")
        with ThreadPoolExecutor(_READERS) as readers:
            found = readers.map(sha256_of, [build / name for name in self.files])
            for (name, right), digest in zip(self.files.items(), found, strict=True):
                if digest != right:
                    raise BadArtifact(f"{name} of build {self.digest} was altered: its SHA-256 is not the manifest's.")


def find_build(out: Path, name: str) -> Path:
    """The folder of the build that `name` means: a digest in the folder `out`, or a path. Raises BadArtifact."""
    for path in (out / name, Path(name)):
        if name and path.is_dir():
            return path
    raise BadArtifact(f"There is no build {name}: it is neither a folder nor the digest of a build in {out}.")


def decoder_in(build: Path) -> Path:
    """The decoder's graph."""
    return build / DECODER_PATH


def vision_in(build: Path) -> Path:
    """The picture encoder's graph: the engine's own, or the one that Triton's onnxruntime backend runs."""
    of_triton = build / TRITONS_VISION_PATH
    return of_triton if of_triton.is_file() else build / VISION_PATH


def _is_content(path: Path) -> bool:
    """Whether a file is a part of the build, not one about it or one that was left half written at its top."""
    return path.parts[0] not in _NOT_CONTENT and not path.parts[0].startswith(".")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
