"""The command line of `make real-size`: `python -m bench.real_size --scratch DIR [--model DIR] [--steps NAME ...]`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from bench.real_size import export_steps, llama_step, page, serve_steps
from bench.real_size.meter import Meter, used_bytes
from bench.real_size.scene import Scene, StepFailed
from bench.records import Row
from export.errors import named_files
from export.precision import Precision
from glmserve.errors import GlmServeError

_STARTED = time.monotonic()
STEPS: dict[str, Callable[[Scene], Row]] = {
    "checkpoint": export_steps.checkpoint,
    "plan": export_steps.plan,
    "build": export_steps.build,
    "verify": export_steps.verify,
    "publish": export_steps.publish,
    "serve": serve_steps.serve,
    "serve-patiently": serve_steps.serve_patiently,
    "llama": llama_step.llama,
    "clean": export_steps.clean,
}
_DEFAULTS = {False: Precision.INT4, True: Precision.FP32}
"""By whether it is a rehearsal: a tiny model of random weights, run as a whole, changes too many words when rounded."""
_UNASKED = ("llama", "clean")
"""Done only when asked for."""


def main(
    scratch: Annotated[Path, typer.Option(help="Where everything is kept; 30 GB for the whole model in int4.")],
    model: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="A folder with the real config. Default: a tiny rehearsal."),
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="What the build is in. Default: int4, and fp32 for a rehearsal.")
    ] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="Text layers, fewer than the config's.")] = None,
    blocks: Annotated[int | None, typer.Option(min=1, help="Vision blocks, fewer than the config's.")] = None,
    steps: Annotated[str, typer.Option(help=f"Which of {', '.join(STEPS)}; done ones run anew.")] = "",
) -> None:
    """Run every step that is not done yet, or the chosen ones, and keep what each has found at once."""
    chosen = steps.replace(",", " ").split()
    if unknown := set(chosen) - STEPS.keys():
        typer.echo(f"STEPS: {', '.join(sorted(unknown))} is no step; choose of {', '.join(STEPS)}.", err=True)
        raise typer.Exit(2)
    built_in = precision or _DEFAULTS[model is None]
    scene = Scene(scratch.resolve(), model and model.resolve(), built_in.value, layers, blocks, _say)
    try:
        with named_files(), scene.alone():
            scene.check(chosen)
            left = chosen or [name for name in STEPS if name not in _UNASKED and not scene.is_done(name)]
            for step in left:
                _take(scene, step)
    except (StepFailed, GlmServeError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    if not left:
        _say(f"Every step is done in {scene.folder}: STEPS= names those to run anew.")


def _take(scene: Scene, step: str) -> None:
    _say(f"{step}: begins; load {os.getloadavg()[0]:.1f}")
    with Meter() as meter:
        found = STEPS[step](scene)
    row = {**meter.row(), "disk_bytes": used_bytes(scene.folder), **found}
    scene.keep(step, row)
    if scene.is_whole:
        page.write()
    _say(f"{step}: {row}")


def _say(text: str) -> None:
    typer.echo(f"[{time.monotonic() - _STARTED:5.0f} s] {text}", err=True)


if __name__ == "__main__":
    typer.run(main)
