"""`plan`: how large a build would be and how much memory it takes, before anything is written."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from export.build.inventory import BuildInventory, inventory
from export.build.pipeline import can_link
from export.build.spec import BuildSpec
from export.build.vision_backend import VisionBackend
from export.checkpoint.formats.fates import Fate
from export.checkpoint.hub import Source, fetched_by, local_folder
from export.commands.common import (
    BUILDS,
    MB,
    BuildMemoryOption,
    CapabilityOption,
    KvOption,
    LoraOption,
    OutOption,
    PrecisionOption,
    TargetOption,
    VisionBackendOption,
    exit_with_sentence,
    order_of,
    plain_console,
)
from export.plan.build_memory import peak_bytes
from export.plan.gpu_fit import TYPICAL_TOKENS, Fit, fits
from export.plan.serving_speed import ServingSpeed, can_measure, serving_speed
from export.precision import KvPrecision, PrecisionChoice, Target
from export.rtx.library import COMPUTE_CAPABILITIES
from export.rtx.order import DEFAULT_MEMORY_BYTES
from glmserve.engine.settings import EngineSettings
from glmserve.errors import BadArtifact
from glmserve.limits import DEADLINE_S

_GB = 1e9
_CHECKPOINT = Annotated[str, typer.Option("--checkpoint", metavar="DIR", help="The checkpoint's folder.")]
_DEFAULT = EngineSettings.model_fields


@dataclass(frozen=True)
class Plan:
    """Everything the command says."""

    inventory: BuildInventory
    new_bytes: int
    peak_bytes: int
    slots: int
    length: int
    long_rows: int
    cards: list[Fit]
    fates: list[Fate] = field(default_factory=list)
    """What becomes of the codes that the checkpoint is published in."""
    notes: tuple[str, ...] = ()
    speed: ServingSpeed | None = None
    """What was measured; None where that was not asked for, or cannot be done on this machine."""

    def as_json(self) -> dict[str, Any]:
        """As `--json` prints it; sizes in bytes."""
        return {
            "files": self.inventory.files,
            "linked": sorted(self.inventory.linked),
            "published": [asdict(fate) for fate in self.fates],
            "notes": list(self.notes),
            "new_bytes": self.new_bytes,
            "peak_bytes": self.peak_bytes,
            "slots": self.slots,
            "length": self.length,
            "speed": None if self.speed is None else self.speed.as_json(),
            "cards": [
                {
                    "card": fit.card,
                    "needed_bytes": fit.plan.total,
                    "usable_bytes": fit.plan.available,
                    "weights_bytes": fit.plan.weights,
                    "kv_bytes": fit.plan.kv,
                    "image_cache_bytes": fit.plan.image_cache,
                    "work_bytes": fit.plan.work,
                    "fits": fit.fits,
                    "kv_tokens": fit.tokens,
                    "most_slots": fit.most_slots,
                    "most_typical_requests": fit.most_typical,
                }
                for fit in self.cards
            ],
        }


@exit_with_sentence
def plan(
    checkpoint: _CHECKPOINT,
    out: OutOption = BUILDS,
    lora: LoraOption = None,
    precision: PrecisionOption = PrecisionChoice.AUTO,
    target: TargetOption = Target.CPU,
    vision_backend: VisionBackendOption = VisionBackend.ENGINE,
    kv: KvOption = KvPrecision.SAME,
    slots: Annotated[int, typer.Option(min=1, max=1024, help="Requests that run at the same time.")] = (
        _DEFAULT["slots"].default
    ),
    length: Annotated[int, typer.Option(min=16, help="Most tokens of each request, images included.")] = (
        _DEFAULT["context_tokens"].default
    ),
    speed: Annotated[
        bool, typer.Option(help="Measure how fast this machine would serve it: runs a few layers for some seconds.")
    ] = True,
    compute_capability: CapabilityOption = "portable",
    build_memory: BuildMemoryOption = DEFAULT_MEMORY_BYTES // MB,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with sizes in bytes.")] = False,
) -> None:
    """Say how large a build would be, how much memory making it takes, and whether this machine (or, with --target
    cuda, which graphics card) could serve it, and, on a processor, how fast. Nothing is left behind.

    Reads only the checkpoint's configuration and the headers of its weights.
    """
    folder = local_folder(checkpoint)
    if not folder.is_dir():
        command = fetched_by(checkpoint)
        remedy = f"Download a checkpoint of the hub first: `{command}`." if command else "Name one that is there."
        raise BadArtifact(f"There is no folder {checkpoint}, and `plan` takes a folder. {remedy}")
    order = order_of(compute_capability, slots, length, build_memory)
    adapters = [Source.of(adapter, "adapter") for adapter in lora or []]
    spec = BuildSpec.of(folder, precision.precision, target, vision_backend, kv=kv, order=order, adapters=adapters)
    found = _plan(spec, out, slots, length)
    if speed and target is Target.CPU and can_measure(spec.checkpoint, spec.numbers):
        found = replace(found, speed=_speed_of(spec))
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=1))
    else:
        _show(found, plain_console())


def _speed_of(spec: BuildSpec) -> ServingSpeed | None:
    """How fast this machine would serve; None, and a sentence on stderr, where it has no room to measure in."""
    settings = EngineSettings.read()
    try:
        return serving_speed(spec.checkpoint, spec.headers, spec.numbers, settings.threads, settings.vision_threads)
    except OSError as error:
        typer.echo(f"Serving speed was not measured: no temporary file can be written ({error.strerror}).", err=True)
        return None


def _plan(spec: BuildSpec, out: Path, slots: int, length: int) -> Plan:
    held = inventory(spec)
    place = next(folder for folder in (out.resolve(), *out.resolve().parents) if folder.is_dir())
    asked = {"device": "cpu" if spec.target is Target.CPU else "cuda", "slots": slots, "context_tokens": length}
    settings = EngineSettings.read().model_copy(update=asked)
    capabilities = (spec.order.capabilities or COMPUTE_CAPABILITIES) if spec.order is not None else None
    return Plan(
        inventory=held,
        new_bytes=held.new_bytes(can_link(spec, place)),
        peak_bytes=peak_bytes(held),
        slots=slots,
        length=min(length, spec.checkpoint.text.max_positions),
        long_rows=settings.long_rows,
        fates=spec.fates,
        notes=spec.notes,
        cards=fits(spec.checkpoint, settings, held.weights, spec.numbers, capabilities),
    )


def _show(found: Plan, console: Console) -> None:
    """The plan as tables and sentences."""
    if found.fates:
        published = Table(found.fates[0].format, "tensors", "MB", "", title="What the checkpoint is published in")
        for fate in found.fates:
            published.add_row(fate.scheme, f"{fate.tensors:,}", f"{fate.stored_bytes / MB:,.1f}", fate.fate)
        console.print(published)
    for sentence in found.notes:
        console.print(sentence)
    files = Table("file", "MB", "", title="What would be written")
    for name, size in found.inventory.files.items():
        note = "the checkpoint's own, linked" if name in found.inventory.linked else ""
        files.add_row(name, f"{size / 1e6:,.2f}", note)
    console.print(files)
    console.print(f"On the disk: {found.new_bytes / _GB:,.2f} GB more.")
    console.print(f"Peak memory of the build: {found.peak_bytes / _GB:,.2f} GB.")
    needed = found.cards[0].plan
    sizes = {"weights": needed.weights, "KV": needed.kv, "work space": needed.work}
    if needed.image_cache:
        sizes["image cache"] = needed.image_cache
    listed = ", ".join(f"{name} {size / _GB:,.1f}" for name, size in sizes.items())
    console.print(f"Memory to serve {found.slots} requests at a time, {found.length:,} tokens each, in GB: {listed}.")
    typical = f"requests of {TYPICAL_TOKENS:,} tokens"
    cards = Table("where", "usable GB", "tokens of KV", "slots", typical, "", title="Where it would fit")
    for fit in found.cards:
        room = (f"{count:,}" for count in (fit.tokens, fit.most_slots, fit.most_typical))
        cards.add_row(fit.card, f"{fit.plan.available / _GB:,.1f}", *room, fit.verdict)
    console.print(cards)
    if any(fit.most_typical > fit.most_slots for fit in found.cards):
        console.print(
            f"Slots are requests of {found.length:,} tokens at a time. With GLM_ENGINE_SHORT_TOKENS={TYPICAL_TOKENS} "
            f"and GLM_ENGINE_SLOTS as in the next column, requests of up to {TYPICAL_TOKENS:,} tokens share the memory "
            f"with {found.long_rows:,} of {found.length:,}."
        )
    if found.speed is not None:
        for sentence in found.speed.sentences(DEADLINE_S):
            console.print(sentence)
