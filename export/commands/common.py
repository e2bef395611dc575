"""What every command shares: its options, and how an error becomes a sentence and an exit code."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec

import typer
from rich.console import Console

from export.build.vision_backend import VisionBackend
from export.errors import MEANING, exit_code, named_files
from export.precision import KvPrecision, PrecisionChoice, Target
from export.rtx.library import compute_capabilities
from export.rtx.order import DEFAULT_SIZES, EngineOrder
from export.rtx.profiles import EngineSizes
from glmserve.build.manifest import Manifest
from glmserve.engine.runtime.device import DeviceName
from glmserve.errors import GlmServeError

P = ParamSpec("P")

WIDE = 160
"""Columns of a table when there is no terminal to ask."""

BUILDS = Path("builds")
EXIT_CODES = "Exit codes: " + ", ".join(f"{code} {text}" for code, text in sorted(MEANING.items())) + "."

CheckpointOption = Annotated[
    str,
    typer.Option(
        "--checkpoint",
        metavar="DIR|OWNER/NAME[@REVISION]",
        help="A checkpoint's folder, or its name on the Hugging Face hub.",
    ),
]
LoraOption = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        metavar="DIR|OWNER/NAME[@REVISION]",
        help="A LoRA adapter of peft, merged into the weights. May be given several times; the order counts.",
    ),
]
CalibrateOption = Annotated[
    bool,
    typer.Option("--calibrate", help="For int4: round layers by what pictures and texts give them. Takes longer."),
]
PromptsOption = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        file_okay=False,
        help="For int4: calibrate on the prompts.jsonl in this folder, instead of on those that come along.",
    ),
]
BitsOption = Annotated[
    float | None,
    typer.Option(
        "--bits", help="For int4: let layers that lose most keep 8 bits, as many as this average allows, such as 4.5."
    ),
]
OutOption = Annotated[Path, typer.Option("--out", file_okay=False, help="The folder that holds all builds.")]
PrecisionOption = Annotated[
    PrecisionChoice,
    typer.Option(
        help="How linear layers are stored. int8 is the fastest on a CPU. auto: as the checkpoint is published, which "
        "is fp32 for one that is not quantised."
    ),
]
KvOption = Annotated[
    KvPrecision,
    typer.Option(help="How the KV cache is stored. int8 fits two to four times the tokens in the same memory."),
]
TargetOption = Annotated[Target, typer.Option(help="The device that will run the build.")]

VisionBackendOption = Annotated[
    VisionBackend,
    typer.Option(
        help="What runs the vision encoder: the engine, or one of Triton's backends. tensorrt needs that command too."
    ),
]

MB = 1_000_000
CapabilityOption = Annotated[
    str,
    typer.Option(
        "--compute-capability",
        metavar="8.6,8.9|portable",
        help="For --target rtx: the GPUs that its engines are for. portable runs on all that TensorRT for RTX knows.",
    ),
]
EngineSlotsOption = Annotated[
    int, typer.Option("--slots", min=1, max=1024, help="For --target rtx: most requests that decode together.")
]
EngineLengthOption = Annotated[
    int, typer.Option("--length", min=16, help="For --target rtx: tokens that each request has room for.")
]
BuildMemoryOption = Annotated[
    int, typer.Option("--build-memory", min=1, help="For --target rtx: MB that building an engine may take.")
]

BuildArgument = Annotated[str, typer.Argument(metavar="BUILD", help="The build's digest, or its folder.")]
DeviceOption = Annotated[
    Target | None, typer.Option(help="The device to run the build on here. Default: the build's own target.")
]


def order_of(compute_capability: str, slots: int, length: int, build_memory: int) -> EngineOrder:
    """The engines that the options ask for; raises BadArtifact for a compute capability that none can be built for."""
    sizes = EngineSizes(slots, length, DEFAULT_SIZES.chunk_tokens)
    return EngineOrder(compute_capabilities(compute_capability), sizes, build_memory * MB)


def plain_console(stderr: bool = False, width: int | None = None) -> Console:
    """A console that prints text unchanged: names of folders and a model's answers may hold square brackets, which are
    no markup. Without a terminal it breaks no line. `width` defaults to the terminal's own."""
    console = Console(stderr=stderr, markup=False, emoji=False, width=width)
    if console.is_terminal:
        return console
    return Console(stderr=stderr, markup=False, emoji=False, width=WIDE, soft_wrap=True)


def device_for(manifest: Manifest, chosen: Target | None) -> DeviceName:
    """The device that a build is tried on."""
    return "cpu" if (chosen or manifest.target) == Target.CPU else "cuda"


def exit_with_sentence(command: Callable[P, None]) -> Callable[P, None]:
    """Makes a command print its errors as one sentence on stderr and exit with the error's code."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with named_files():
                command(*args, **kwargs)
        except GlmServeError as error:
            typer.echo(error.message, err=True)
            raise typer.Exit(exit_code(error)) from None

    return run
