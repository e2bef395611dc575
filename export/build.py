"""Writes a build: graphs with streamed weights, Triton's models, tokenizer and manifest, in one immutable folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from rich.console import Console

from export.canary import write_canary
from export.decoder import decoder_graph
from export.linked import link_weights
from export.precision import Numbers, Precision, Target, numbers_of
from export.progress import Advance, byte_progress
from export.standard import weights_in_files, write_standard
from export.vision import vision_graph
from export.vision_backend import VisionBackend, check_backend, write_entry
from export.weights import Weights
from glmserve import manifest as layout
from glmserve.checkpoint import PROCESSOR_FILES, Checkpoint
from glmserve.contract import DECODER_MODEL, VISION_MODEL
from glmserve.errors import BadArtifact
from glmserve.manifest import Manifest, sha256_of

_OPTIONAL_FILES = ("generation_config.json",)
_READERS = 4
_INLINE_BYTES = 256
"""Tensors up to this size stay inside the graph's own file."""
_MODELS = Path(__file__).resolve().parents[1] / "model_repository"


def build(
    checkpoint_folder: Path,
    out: Path,
    console: Console,
    precision: Precision = Precision.FP32,
    target: Target = Target.CPU,
    vision_backend: VisionBackend = VisionBackend.PYTHON,
) -> Path:
    """The build of a checkpoint under `out`: the one that is there already, or a new one.

    A new build is written aside and renamed when complete, so that a reader never sees half of one. Raises BadArtifact
    when the checkpoint is incomplete or of another architecture, or when the target or the backend cannot run the
    precision.
    """
    check_backend(vision_backend, precision)
    order = _Order(checkpoint_folder, precision, target, numbers_of(precision, target), vision_backend)
    checkpoint = Checkpoint.read(checkpoint_folder)
    weights = Weights.open(checkpoint_folder)
    _check_processor_files(checkpoint_folder)
    digests = _read_through(weights, console)
    recipe = _recipe(order, digests)
    existing = _find(out, recipe)
    if existing:
        return existing
    out.mkdir(parents=True, exist_ok=True)
    partial = out / f".partial-{uuid.uuid4().hex}"
    try:
        return _write(order, partial, out, checkpoint, weights, digests, recipe, console)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@dataclass(frozen=True)
class _Order:
    """What is to be built from what."""

    checkpoint: Path
    precision: Precision
    target: Target
    numbers: Numbers
    vision_backend: VisionBackend


def _write(
    order: _Order,
    partial: Path,
    out: Path,
    checkpoint: Checkpoint,
    weights: Weights,
    digests: dict[Path, str],
    recipe: str,
    console: Console,
) -> Path:
    repository = partial / layout.REPOSITORY_FOLDER
    shutil.copytree(_MODELS, repository, ignore=shutil.ignore_patterns("__pycache__"))
    _copy_processor(order.checkpoint, partial / layout.CHECKPOINT_FOLDER)
    write_canary(order.checkpoint, partial / layout.CANARY_FOLDER)
    vision = repository / VISION_MODEL / "1" / layout.VISION_GRAPH
    picture_encoder = vision_graph(checkpoint, weights, order.numbers)
    _save(picture_encoder, vision, "vision", console)
    write_entry(order.vision_backend, repository / VISION_MODEL, checkpoint, order.target)
    decoder = repository / DECODER_MODEL / "1" / layout.DECODER_GRAPH
    model = decoder_graph(checkpoint, weights, order.numbers)
    linked = link_weights(model, weights, decoder.parent)
    _save(model, decoder, "decoder", console)
    if order.vision_backend is VisionBackend.TENSORRT:
        for write, built, path in ((vision_graph, picture_encoder, vision), (decoder_graph, model, decoder)):
            standard = write(checkpoint, weights, order.numbers, is_standard=True)
            write_standard(standard, weights_in_files(built), path.parent)
    known = {(path.stat().st_dev, path.stat().st_ino): digests[path] for path in linked}
    manifest = Manifest.describe(partial, recipe, order.checkpoint.resolve().name, order.precision, order.target, known)
    manifest.write(partial)
    final = out / manifest.digest
    if final.exists():  # an earlier build of this digest that was damaged or of which only a part was kept
        shutil.rmtree(final)
    return partial.rename(final)


def _save(model: ir.Model, path: Path, title: str, console: Console) -> None:
    """Writes a graph and, beside it, those weights that are in no file yet, each read only while it is written."""
    copied = [
        (value, value.const_value)
        for value in model.graph.initializers.values()
        if value.const_value is not None
        and not isinstance(value.const_value, ir.ExternalTensor)
        and value.const_value.nbytes > _INLINE_BYTES
    ]
    with byte_progress(console, title, sum(tensor.nbytes for _, tensor in copied)) as advance:
        written = ir.external_data.convert_tensors_to_external(
            [tensor for _, tensor in copied], path.parent, f"{path.stem}.data", callback=_advance_by_tensor(advance)
        )
    for (value, _), tensor in zip(copied, written, strict=True):
        value.const_value = tensor
    ir.save(model, path)


def _advance_by_tensor(advance: Advance) -> Callable[[ir.TensorProtocol, object], None]:
    return lambda tensor, _: advance(tensor.nbytes)


def _copy_processor(checkpoint: Path, folder: Path) -> None:
    folder.mkdir()
    for name in (*PROCESSOR_FILES, *_OPTIONAL_FILES):
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, folder / name)


def _check_processor_files(checkpoint: Path) -> None:
    for name in PROCESSOR_FILES:
        if not (checkpoint / name).is_file():
            raise BadArtifact(f"The checkpoint lacks {name}.")


def _read_through(weights: Weights, console: Console) -> dict[Path, str]:
    """The SHA-256 of each of the checkpoint's files of weights, several at a time."""
    digests = {}
    with (
        byte_progress(console, "reading", sum(path.stat().st_size for path in weights.files)) as advance,
        ThreadPoolExecutor(_READERS) as readers,
    ):
        for path, digest in zip(weights.files, readers.map(sha256_of, weights.files), strict=True):
            digests[path] = digest
            advance(path.stat().st_size)
    return digests


def _recipe(order: _Order, digests: dict[Path, str]) -> str:
    """What a build is made of: precision, target, every file of the checkpoint that matters, the exporter's code."""
    checkpoint = order.checkpoint
    golden = sorted((checkpoint / "golden").glob("canary.*"))
    small = [checkpoint / name for name in (*PROCESSOR_FILES, *_OPTIONAL_FILES) if (checkpoint / name).is_file()]
    code = [*Path(__file__).parent.glob("*.py"), *_MODELS.rglob("*.py"), *_MODELS.rglob("*.pbtxt")]
    parts: list[list[str]] = [[order.precision, order.target, order.vision_backend]]
    parts += [[path.name, sha256_of(path)] for path in sorted([*small, *golden, *code])]
    parts += [[path.name, digest] for path, digest in sorted(digests.items())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _find(out: Path, recipe: str) -> Path | None:
    """A complete, unaltered build of this recipe."""
    for path in sorted(out.glob(f"*/{layout.MANIFEST_FILE}")):
        try:
            manifest = Manifest.read(path.parent)
            if manifest.recipe == recipe:
                manifest.check(path.parent)
                return path.parent
        except BadArtifact:
            continue
    return None
