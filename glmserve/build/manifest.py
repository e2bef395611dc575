"""What a build is: an immutable folder named by the digest of everything in it.

```
builds/current         a link to the build that is served, once one was published
builds/<digest>/
  manifest.json        this module's Manifest
  certificate.json     written by `export verify`, or by `export build` beside golden logits
  certificate.html     the same for a reader
  checkpoint/          config, preprocessor, tokenizer and template, copied
  canary/              image.png and canary.json: a question and, where it is known, its answer
  model_repository/    what tritonserver is pointed at; graphs and weights lie beside the model.py that runs them
```
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
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
"""Where Triton's onnxruntime backend finds the image encoder."""
DIGEST_CHARS = 16
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int4")
TARGETS = ("cpu", "cuda", "rtx")
KV_PRECISIONS = ("same", "int8")
_NOT_CONTENT = (MANIFEST_FILE, CERTIFICATE_FILE, CERTIFICATE_PAGE)
_LOADED = (CHECKPOINT_FOLDER, CANARY_FOLDER, REPOSITORY_FOLDER)
"""The folders of which everything may be loaded, whether we know it or not: Triton loads every model it finds."""
_CACHES = "__pycache__"
_READERS = 4


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Manifest:
    """A build's identity; `files` maps each path inside it to its SHA-256, `recipe` names checkpoint and exporter.

    `engines` says which library made the engines in it, in which version and for which GPUs; empty if there are none.
    `adapters` are the LoRA adapters that were merged in, in their order, each with its `name` and `digest`.
    `rounding` says on what layers were calibrated, and how many bits that took; empty for plain rounding.
    `format` is the one that a quantised checkpoint was published in; empty for one that holds numbers.
    """

    digest: str
    recipe: str
    contract_version: int
    source: str
    precision: str
    target: str
    kv: str
    files: dict[str, str]
    engines: str = ""
    adapters: list[dict[str, str]] = field(default_factory=list)
    rounding: str = ""
    format: str = ""

    @staticmethod
    def describe(
        folder: Path,
        recipe: str,
        source: str,
        precision: str,
        target: str,
        kv: str = "same",
        known: Mapping[tuple[int, int], str] | None = None,
        engines: str = "",
        adapters: Sequence[dict[str, str]] = (),
        rounding: str = "",
        format: str = "",
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
        digest = _digest(precision, target, kv, files)
        return Manifest(
            digest,
            recipe,
            CONTRACT_VERSION,
            source,
            precision,
            target,
            kv,
            files,
            engines,
            list(adapters),
            rounding,
            format,
        )

    @staticmethod
    def read(build: Path) -> Manifest:
        """The manifest of a build; raises BadArtifact when it is missing, broken or of another contract version."""
        path = build / MANIFEST_FILE
        try:
            manifest = Manifest(**json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            raise BadArtifact(f"{build} is not a build: it has no {MANIFEST_FILE}.") from None
        except (OSError, ValueError, TypeError):
            raise BadArtifact(f"{path} cannot be read as a manifest.") from None
        if manifest.contract_version != CONTRACT_VERSION:
            raise BadArtifact(
                f"Build {manifest.digest} is of contract version {manifest.contract_version}, "
                f"this server of version {CONTRACT_VERSION}: export the checkpoint again."
            )
        wrong = manifest._wrong_field()
        if wrong is not None:
            raise BadArtifact(f"{path} cannot be read as a manifest: it has a wrong {wrong}.")
        return manifest

    def write(self, build: Path) -> None:
        (build / MANIFEST_FILE).write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n", "utf-8")

    def check(self, build: Path, left_out: Collection[str] = (), digest_of: Callable[[Path], str] = sha256_of) -> None:
        """Raises BadArtifact naming the first file that is missing, not what the manifest says, or none of its own, and
        when the manifest itself was altered. The folders `left_out` of a copy may lack their files;
        `digest_of` finds a file's SHA-256."""
        if self.digest != _digest(self.precision, self.target, self.kv, self.files):
            raise BadArtifact(f"{MANIFEST_FILE} of build {self.digest} was altered: it is not of that digest.")
        wanted = {name: right for name, right in self.files.items() if name.split("/")[0] not in left_out}
        for name in wanted:
            if not (build / name).is_file():
                raise BadArtifact(f"Build {self.digest} lacks {name}.")
        foreign = self._foreign_file(build)
        if foreign is not None:
            raise BadArtifact(f"{foreign} in build {self.digest} is no part of it: remove it.")
        with ThreadPoolExecutor(_READERS) as readers:
            found = readers.map(digest_of, [build / name for name in wanted])
            for (name, right), digest in zip(wanted.items(), found, strict=True):
                if digest != right:
                    raise BadArtifact(f"{name} of build {self.digest} was altered: its SHA-256 is not the manifest's.")

    def _wrong_field(self) -> str | None:
        """The first field that holds what it cannot hold, if one does."""
        choices = {"precision": PRECISIONS, "target": TARGETS, "kv": KV_PRECISIONS}
        for name in ("digest", "recipe", "source", "engines", "rounding", "format", *choices):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in choices.get(name, (value,)):
                return name
        if not isinstance(self.adapters, list) or not all(_is_adapter(adapter) for adapter in self.adapters):
            return "adapters"
        are_names = isinstance(self.files, dict) and all(isinstance(digest, str) for digest in self.files.values())
        return None if are_names else "files"

    def _foreign_file(self, build: Path) -> str | None:
        """A file that may be loaded and that the manifest does not name, if there is one.

        A folder of links to a build, as a TensorRT engine's is, has a model of its own and none of these.
        """
        if (build / MANIFEST_FILE).is_symlink():
            return None
        for path in sorted(found for folder in _LOADED for found in (build / folder).rglob("*")):
            parts = path.relative_to(build).parts
            is_folder = path.is_dir() and not path.is_symlink()
            is_passed = is_folder or _CACHES in parts or any(part.startswith(".") for part in parts)
            if not is_passed and str(path.relative_to(build)) not in self.files:
                return str(path.relative_to(build))
        return None


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
    """The image encoder's graph: the engine's own, or the one that Triton's onnxruntime backend runs."""
    of_triton = build / TRITONS_VISION_PATH
    return of_triton if of_triton.is_file() else build / VISION_PATH


def _digest(precision: str, target: str, kv: str, files: dict[str, str]) -> str:
    """The digest that names a build of these files."""
    identity = json.dumps([CONTRACT_VERSION, precision, target, kv, files], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:DIGEST_CHARS]


def _is_adapter(adapter: object) -> bool:
    """Whether an entry of a manifest names an adapter."""
    return isinstance(adapter, dict) and all(isinstance(adapter.get(key), str) for key in ("name", "digest"))


def _is_content(path: Path) -> bool:
    """Whether a file is a part of the build, not one about it or one that was left half written at its top."""
    return path.parts[0] not in _NOT_CONTENT and not path.parts[0].startswith(".")
