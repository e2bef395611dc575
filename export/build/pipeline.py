"""Writes a build: graphs with streamed weights, Triton's models, tokenizer and manifest, in one immutable folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from io import BufferedIOBase
from pathlib import Path
from typing import cast
from uuid import uuid4

import onnx_ir as ir
from rich.console import Console

from export.build.canary import write_canary
from export.build.inventory import inventory
from export.build.onnx_writer import unwritten, write_graph
from export.build.progress import Advance, byte_progress
from export.build.spec import VISION_CONFIG_PATH, BuildSpec
from export.build.tensor_writer import Journal, digest_of
from export.build.vision_backend import VisionBackend
from export.calibrate.decoder_rounding import DecoderRounding, RoundedDecoder
from export.calibrate.order import CalibrationOrder
from export.calibrate.states import Prompt, first_states
from export.certificate.writer import GOLDEN, write_certificate
from export.checkpoint.hard_links import link_weights
from export.checkpoint.hub import Source
from export.checkpoint.weights import READERS
from export.errors import DiskFull, room_on
from export.graph.standard_ops import weights_in_files, write_standard
from export.precision import KvPrecision, Precision, Target
from export.rtx.engine_writer import EngineWriter
from export.rtx.library import library_version
from export.rtx.order import EngineOrder
from export.store.build_store import BUILD_LOCK, PARTS, builds_in, locked, write_whole
from export.store.durable_io import sync_folder
from export.store.file_digests import FileDigests
from export.verify.candidate import Candidate
from export.verify.golden import compare_golden, golden_files, read_golden, room_for
from glmserve.build import manifest as layout
from glmserve.build.certificate import Certificate
from glmserve.build.manifest import DECODER_PATH, DIGEST_CHARS, Manifest, sha256_of
from glmserve.errors import BadArtifact
from glmserve.system.bundled_files import MODEL_REPOSITORY

_JOURNAL = "journal.jsonl"
_ENGINES = "engines"
_CALIBRATION = "calibration"
_GB = 1e9
_PACKAGES = ("onnx-ir", "ml-dtypes", "numpy", "pillow")
"""The packages that write a build's bytes: graphs, numbers and a drawn canary."""


def build(
    checkpoint: Path,
    out: Path,
    console: Console,
    precision: Precision | None = Precision.FP32,
    target: Target = Target.CPU,
    vision_backend: VisionBackend = VisionBackend.ENGINE,
    source: str | None = None,
    kv: KvPrecision = KvPrecision.SAME,
    order: EngineOrder | None = None,
    adapters: Sequence[Source] = (),
    calibration: CalibrationOrder | None = None,
) -> Path:
    """The build of a checkpoint under `out`: the one that is there already, or a new one. `source` names it, `order`
    says which engines a build for the target rtx gets, `adapters` are LoRA adapters to be merged in, in their order,
    `calibration` on what layers are rounded to 4 bits. Without a precision it is the one that the checkpoint is
    published in.

    A new build is written aside and renamed when complete, so that a reader never sees half of one. What a kill
    interrupts is found again and gone on with. Raises, before anything is written, what `BuildSpec.of` raises, Locked
    while another build writes into `out`, BadArtifact for golden cases that cannot be compared with, and DiskFull,
    which may also come later.
    """
    spec = BuildSpec.of(checkpoint, precision, target, vision_backend, source, kv, order, adapters, calibration)
    made_with = [] if spec.order is None else [library_version()]
    plan = inventory(spec)
    if spec.has_golden:
        room_for(read_golden(checkpoint), spec.checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    remembered = FileDigests.open(out)
    digests = _read_through(spec, remembered, console)
    recipe = _recipe(spec, digests, made_with)
    existing = _find(out, recipe, remembered)
    remembered.save()
    if existing and ((existing / layout.CERTIFICATE_FILE).exists() or not spec.has_golden):
        return existing
    with locked(out, BUILD_LOCK):
        parts = out / f"{PARTS}{recipe[:DIGEST_CHARS]}"
        existing = existing or _find(out, recipe, remembered)  # somebody may have made it in the meantime
        if existing is None:
            codes = 0 if spec.calibration is None else plan.weights  # kept until the build is done
            _check_room(plan.new_bytes(can_link(spec, out)) + codes, out, parts)
            with room_on(out):
                existing = _write(spec, parts, out, digests, recipe, console)
        elif not (existing / layout.CERTIFICATE_FILE).exists():
            _certify(spec, existing, console)
        shutil.rmtree(parts, ignore_errors=True)
        return existing


def can_link(spec: BuildSpec, out: Path) -> bool:
    """Whether the checkpoint lies on the file system that the build goes to."""
    return all(path.stat().st_dev == out.stat().st_dev for path in spec.weights.files)


def _write(spec: BuildSpec, parts: Path, out: Path, digests: dict[Path, str], recipe: str, console: Console) -> Path:
    partial = parts / "build"
    partial.mkdir(parents=True, exist_ok=True)
    shutil.copytree(MODEL_REPOSITORY, partial / layout.REPOSITORY_FOLDER, ignore=_NO_CACHES, dirs_exist_ok=True)
    _copy_processor(spec, partial / layout.CHECKPOINT_FOLDER)
    write_canary(spec.folder, partial / layout.CANARY_FOLDER, is_adapted=bool(spec.adapters))
    if spec.vision_config is not None:
        (partial / VISION_CONFIG_PATH).parent.mkdir(exist_ok=True)
        (partial / VISION_CONFIG_PATH).write_text(spec.vision_config, "utf-8")
    for sentence in (*(fate.sentence for fate in spec.fates), *spec.notes):
        console.print(sentence)
    known, engines = _write_graphs(spec, partial, parts, digests, console)
    kinds = (spec.precision, spec.target, spec.kv)
    adapters = [{"name": adapter.name, "digest": adapter.digest} for adapter in spec.adapters]
    rounding = "" if spec.calibration is None else spec.calibration.said
    manifest = Manifest.describe(partial, recipe, spec.source, *kinds, known, engines, adapters, rounding, spec.format)
    manifest.write(partial)
    _certify(spec, partial, console)
    _sync_tree(partial)
    final = out / manifest.digest
    if final.exists():
        if _is_whole(final, manifest):  # the same content, from another recipe: it may be served this moment
            _take_over(final, partial)
            return final
        final.rename(parts / f"damaged-{uuid4().hex}")
    partial.rename(final)
    sync_folder(out)
    return final


def _take_over(final: Path, partial: Path) -> None:
    """Gives a build what is new about one of the same content: its recipe, and its certificate where the build has none
    that holds, or where the new one speaks against it. The build was made when it was made first."""
    manifest, certificate = Manifest.read(partial), partial / layout.CERTIFICATE_FILE
    if certificate.exists() and not (Certificate.vouches(partial, manifest) and Certificate.vouches(final, manifest)):
        for name in (layout.CERTIFICATE_PAGE, layout.CERTIFICATE_FILE):
            write_whole(final / name, (partial / name).read_text("utf-8"))
    path = final / layout.MANIFEST_FILE
    write_whole(path, (partial / layout.MANIFEST_FILE).read_text("utf-8"), path.stat().st_mtime_ns)


def _is_whole(build: Path, manifest: Manifest, digest_of_file: Callable[[Path], str] = sha256_of) -> bool:
    try:
        manifest.check(build, digest_of=digest_of_file)
    except BadArtifact:
        return False
    return True


def _certify(spec: BuildSpec, build: Path, console: Console) -> None:
    """Leaves a certificate in a build whose checkpoint has recorded logits, if this machine can run it."""
    if not spec.has_golden:
        return
    if spec.target is not Target.CPU:
        console.print("Not certified: this build runs on CUDA. Certify it there with `verify`.")
        return
    cases = read_golden(spec.folder)
    stages = compare_golden(Candidate(build, slots=1, context=room_for(cases, spec.checkpoint)), cases)
    passed = write_certificate(build, Manifest.read(build), stages, GOLDEN, Console(quiet=True))
    verdict = "It computes" if passed else "IT DOES NOT COMPUTE"
    console.print(f"{verdict} what the {len(cases)} golden cases beside the checkpoint say: {layout.CERTIFICATE_PAGE}")


_NO_CACHES = shutil.ignore_patterns("__pycache__")


def _write_graphs(
    spec: BuildSpec, partial: Path, parts: Path, digests: dict[Path, str], console: Console
) -> tuple[dict[tuple[int, int], str], str]:
    """Writes every graph and its weights, and the engines; the SHA-256 of the large files, by device and inode, and the
    manifest's line on the engines."""
    journal, known = Journal(parts / _JOURNAL), dict[Path, str]()
    placed = {}
    calibrate = None if spec.calibration is None else lambda: _calibrated(spec, partial, parts, console)
    for name, model in spec.graphs(spec.weights, calibrate):
        path = partial / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == DECODER_PATH:
            for source in link_weights(model, spec.weights, path.parent):
                known[source] = digests[source]
        total = sum(value.const_value.nbytes for value in unwritten(model) if value.const_value is not None)
        with byte_progress(console, model.graph.name or path.stem, total) as advance:
            known |= write_graph(model, path, journal, advance)
        placed[name] = weights_in_files(model)
    for name, model in spec.standard_graphs(spec.weights):
        write_standard(model, placed[name], partial / name)
    engines = _write_engines(spec, partial, parts / _ENGINES, placed, console)
    return {(path.stat().st_dev, path.stat().st_ino): digest for path, digest in known.items()}, engines


def _calibrated(spec: BuildSpec, partial: Path, parts: Path, console: Console) -> RoundedDecoder:
    """The decoder, rounded by what the build's own image encoder and the prompts give it."""
    assert spec.calibration is not None
    order, layers, began = spec.calibration, spec.checkpoint.text.layers, time.monotonic()
    done, skipped = 0, None

    def begin() -> list[Prompt]:
        vision = partial / spec.vision_path
        return first_states(spec.folder, spec.checkpoint, spec.weights, vision, order.prompts.prompts)

    def advance(count: int) -> None:
        nonlocal done, skipped
        skipped, done = count if skipped is None else skipped, done + count
        left_s = (time.monotonic() - began) / max(1, done - skipped) * (layers - done)
        console.print(f"calibrating: {done} of {layers} layers" + (f", {left_s:.0f} s left" if done > skipped else ""))

    rounding = DecoderRounding(
        spec.checkpoint, spec.weights, spec.numbers.real.numpy(), order.bits, parts / _CALIBRATION
    )
    return rounding.run(begin, advance)


def _write_engines(
    spec: BuildSpec, partial: Path, scratch: Path, placed: dict[str, dict[str, ir.TensorProtocol]], console: Console
) -> str:
    """The engines that are ordered, from graphs that lie beside the weights written before; the manifest's line."""
    ordered = spec.engines(spec.weights)
    if ordered is None or spec.order is None:
        return ""
    decoder, vision = ordered
    writer = EngineWriter((partial / DECODER_PATH).parent, scratch, spec.order, spec.numbers, console)
    writer.write(vision, partial / spec.vision_path, placed[spec.vision_path])
    for engine in decoder:
        writer.write(engine, partial / DECODER_PATH, placed[DECODER_PATH])
    return writer.finish(decoder, vision, spec.order.sizes.cut_to(spec.checkpoint.text).context)


def _sync_tree(folder: Path) -> None:
    """Returns once everything in a folder is on the disk, so that its new name never stands for less."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def _copy_processor(spec: BuildSpec, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for path in spec.small_files:
        shutil.copyfile(path, folder / path.name)


def _check_room(needed: int, out: Path, parts: Path) -> None:
    """Raises DiskFull when what is still to be written would not fit."""
    done = sum(path.stat().st_size for path in parts.rglob("*") if path.is_file() and path.stat().st_nlink == 1)
    free = shutil.disk_usage(out).free
    if needed - done > free:
        raise DiskFull(
            f"The build needs {(needed - done) / _GB:.1f} GB more in {out}, where {free / _GB:.1f} GB are free: make "
            "room, choose another folder with --out, or a --precision of fewer bits. Nothing was written."
        )


def _read_through(spec: BuildSpec, remembered: FileDigests, console: Console) -> dict[Path, str]:
    """The SHA-256 of each of the checkpoint's files of weights, several at a time, read unless it is remembered."""
    files, digests = spec.weights.files, {}
    with (
        byte_progress(console, "reading", sum(path.stat().st_size for path in files)) as advance,
        ThreadPoolExecutor(READERS) as readers,
    ):
        for path, digest in zip(
            files, readers.map(lambda path: _digest(path, remembered, advance), files), strict=True
        ):
            digests[path] = digest
    return digests


def _digest(path: Path, remembered: FileDigests, advance: Advance = lambda _size: None) -> str:
    """A file's SHA-256; `advance` hears of all its bytes, read or remembered."""
    told = 0

    def count(size: int) -> None:
        nonlocal told
        told += size
        advance(size)

    digest = remembered.of(path, lambda file: digest_of(cast(BufferedIOBase, file), count).hexdigest())
    advance(max(0, path.stat().st_size - told))
    return digest


def _recipe(spec: BuildSpec, digests: dict[Path, str], made_with: list[str]) -> str:
    """What a build is made of: precisions, target, engines and what they are `made_with`, adapters in their order,
    every file of the checkpoint that matters, the code that reads it and writes the graphs, and the versions of what
    that uses."""
    exporter, shared = Path(__file__).parents[1], Path(layout.__file__).parents[1]
    code = [path for path in shared.rglob("*.py") if not path.is_relative_to(shared / "engine")]
    code += [*exporter.rglob("*.py"), *MODEL_REPOSITORY.rglob("*.py"), *MODEL_REPOSITORY.rglob("*.pbtxt")]
    parts = [[path.name, sha256_of(path)] for path in (*spec.small_files, *golden_files(spec.folder))]
    parts += [[str(path.relative_to(shared.parent)), sha256_of(path)] for path in code]
    parts += [[path.name, digest] for path, digest in digests.items()]
    parts += [[name, version(name)] for name in _PACKAGES]
    choices: list[str] = [spec.precision, spec.target, spec.kv, spec.vision_backend]
    if spec.format:
        choices.append(repr(spec.numbers))
    if spec.order is not None:
        choices += [repr(spec.order), *made_with]
    if spec.calibration is not None:
        choices += [repr(spec.calibration.bits), spec.calibration.prompts.digest]
    choices += [text for adapter in spec.adapters for text in (adapter.name, adapter.digest)]
    return hashlib.sha256(json.dumps([*choices, sorted(parts)]).encode()).hexdigest()


def _find(out: Path, recipe: str, remembered: FileDigests) -> Path | None:
    """A complete, unaltered build of this recipe."""
    for path, manifest in builds_in(out):
        if manifest.recipe == recipe and _is_whole(path, manifest, lambda file: _digest(file, remembered)):
            return path
    return None
