"""The command line of the measurements: `python -m bench`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bench import records
from bench.checkpoints.builds import CACHE
from bench.checkpoints.synthetic import DEMO, write_like
from bench.gpu import check
from bench.harness import Run
from bench.measure import (
    cpu_split,
    decode_steps,
    export_cost,
    floods,
    followup,
    interference,
    overhead,
    per_core,
    rejection_latency,
    replicas,
    service_soak,
    soak,
    speculative,
    step_profile,
    stream_fanout,
    throughput,
)
from bench.peers import compare
from bench.peers.environment import NotInstalled
from bench.records import Row
from bench.report import tables
from bench.servers.processes import NotStarted
from bench.simulation import simulate
from export.errors import named_files
from export.precision import Precision
from glmserve.errors import GlmServeError
from glmserve.system.cpu_count import cores
from launcher.gateway_server import GatewayFailed
from launcher.triton_server import TritonFailed

HALF_THE_CORES = max(1, cores() // 2)
Threads = Annotated[int, typer.Option(min=1, help="Processor threads of the model, the same on every side.")]
Rounds = Annotated[int, typer.Option(min=1, help="How often each comparison is made; the median counts.")]
Folder = Annotated[Path, typer.Option(exists=True, file_okay=False, help="A Hugging Face checkpoint's folder.")]
_TOLD = (GlmServeError, NotInstalled, NotStarted, TritonFailed, GatewayFailed, service_soak.NothingAnswered)
"""Errors whose message is what a user needs."""
_STARTED = time.monotonic()

app = typer.Typer(
    add_completion=False,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    help="Measure the service beside the script it replaces, and beside its own bare engine; into bench/results.",
)


@app.callback()
def show_help(context: typer.Context) -> None:
    """Without a command: the help, and which results are older than what they measure."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        _say_what_is_outdated()


def _add_command(name: str, measure: Callable[[Run], list[Row]], rounds: int, help_text: str, has_model: bool) -> None:
    def with_model(threads: Threads = HALF_THE_CORES, rounds: Rounds = rounds) -> None:
        _keep(name, measure(Run(threads, rounds, say)), f"{name} --threads {threads} --rounds {rounds}")

    def without_model(rounds: Rounds = rounds) -> None:
        _keep(name, measure(Run(0, rounds, say)), f"{name} --rounds {rounds}")

    app.command(name, help=help_text)(with_model if has_model else without_model)


for _name, _module, _rounds, _has_model in (
    ("throughput", throughput, 3, True),
    ("overhead", overhead, 4, True),
    ("interference", interference, 2, True),
    ("followup", followup, 5, True),
    ("speculative", speculative, 3, True),
    ("profile", step_profile, 3, True),
    ("steps", decode_steps, 5, True),
    ("streams", stream_fanout, 3, False),
    ("split", cpu_split, 3, False),
    ("percore", per_core, 5, False),
    ("replicas", replicas, 3, False),
    ("refusals", rejection_latency, 3, False),
    ("floods", floods, 2, False),
    ("peers", compare, 3, False),
):
    _add_command(_name, _module.measure, _rounds, (_module.__doc__ or "").partition("\n")[0], _has_model)


@app.command("simulate")
def run_simulation(
    replicas: Annotated[int, typer.Option(min=1, help="The largest number of replicas.")] = 1000,
    seconds: Annotated[float, typer.Option(min=1, help="Simulated seconds of each run, fewer with many.")] = 60.0,
) -> None:
    """The engine's scheduler and the gateways' load balancer in simulated time, with up to 1,000 replicas."""
    rows = simulate.measure(seconds, replicas, say)
    _keep("simulation", rows, f"simulate --replicas {replicas} --seconds {seconds:g}")


@app.command("checkpoint")
def write_checkpoint(
    out: Annotated[Path, typer.Argument(help="Where the checkpoint is written; must not exist yet.")],
    model: Folder,
    shards: Annotated[int, typer.Option(min=1, help="How many files hold the weights.")] = 4,
) -> None:
    """Write a checkpoint with the config and tokenizer of MODEL and random bf16 weights; the real one takes 20.6 GB."""
    write_like(model, out, shards)


@app.command("export-cost")
def run_export_cost(
    checkpoint: Folder,
    scratch: Annotated[Path, typer.Option(help="A folder with room for a copy, on the checkpoint's file system.")],
    precision: Annotated[list[Precision], typer.Option(help="May be given several times.")],
) -> None:
    """Peak memory of an export, and its time beside a plain copy of the checkpoint."""
    rows = export_cost.measure(checkpoint, scratch, precision, say)
    listed = " ".join(f"--precision {name}" for name in precision)
    _keep("export_cost", rows, f"export-cost --checkpoint DIR --scratch DIR {listed}")


@app.command("gpu-check")
def run_gpu_check(
    model: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="A folder with the real config and tokenizer.")
    ] = None,
    scratch: Annotated[Path, typer.Option(help="Where checkpoint and build are kept; 25 GB on a GPU machine.")] = (
        CACHE / "gpu-check"
    ),
) -> None:
    """The full-size model on this machine's GPU, beside the memory's limit and transformers; exit code 1 if wrong."""
    try:
        verdict = check.gpu_check(model, scratch, typer.echo)
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    folder = records.RESULTS if verdict.has_gpu else scratch
    say(f"Wrote {records.write('gpu_check', verdict.rows, 'make gpu-check', folder)}")
    if not verdict.is_right:
        raise typer.Exit(1)


@app.command("report")
def write_report() -> None:
    """Write the tables and charts of docs/benchmarks.md and docs/scaling.md from bench/results."""
    for path in tables.write():
        say(f"Wrote {path}")
    _say_what_is_outdated()


_Seed = Annotated[int, typer.Option(help="Decides the requests, and who leaves when.")]
_Minutes = Annotated[float, typer.Option(min=0.05, help="How long clients keep sending requests.")]


@app.command("soak")
def run_soak(
    minutes: _Minutes = 20.0, threads: Threads = HALF_THE_CORES, seed: _Seed = 0, checkpoint: Folder = DEMO
) -> None:
    """The whole service at 70 % of what it can do, and whether it grows: a JSON summary; exit code 1 if it fails.

    Before that it takes half a minute to find what the service can do.
    """
    say(f"The gateway's log lies in {service_soak.LOGS}")
    _judge_soak(service_soak.soak(Run(threads, 1, say).build(checkpoint), minutes, threads, seed, say))


@app.command("soak-engine")
def run_engine_soak(
    minutes: _Minutes = 20.0, threads: Threads = HALF_THE_CORES, seed: _Seed = 0, checkpoint: Folder = DEMO
) -> None:
    """Random joins, departures, deadlines and seeds in the bare engine, always full; judged as `soak` is."""
    _judge_soak(soak.soak(Run(threads, 1, say).build(checkpoint), minutes, threads, seed, say))


def _judge_soak(summary: soak.Summary | service_soak.ServiceSummary) -> None:
    typer.echo(json.dumps(asdict(summary) | {"passed": summary.passed, "faults": summary.faults}, indent=1))
    if not summary.passed:
        raise typer.Exit(1)


def say(text: str) -> None:
    """Progress, with the seconds since the start."""
    typer.echo(f"[{time.monotonic() - _STARTED:4.0f} s] {text}", err=True)


def _keep(name: str, rows: list[Row], command: str) -> None:
    say(f"Wrote {records.write(name, rows, f'python -m bench {command}')}")


def _say_what_is_outdated() -> None:
    for line in records.outdated():
        typer.echo(f"Older than what it measures: {line}", err=True)


def main() -> None:
    """The entry of `python -m bench`; what is missing on this machine or in a checkpoint is a sentence."""
    try:
        with named_files():
            app(prog_name="python -m bench")
    except _TOLD as error:
        sys.exit(str(error))
