"""The command line of the measurements: `python -m bench`."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bench import followup, interference, overhead, percore, refusals, report, results, soak, split, streams, throughput
from bench.builds import FP32, build_of
from bench.checkpoint import DEMO
from bench.results import Row

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Measure the service beside the script it replaces, and beside its own bare engine; into bench/results.",
)

HALF_THE_CORES = max(1, (os.cpu_count() or 1) // 2)
Threads = Annotated[int, typer.Option(min=1, help="Processor threads of the model, the same on every side.")]
Rounds = Annotated[int, typer.Option(min=1, help="How often each comparison is made; the median counts.")]
_STARTED = time.monotonic()


@app.command("throughput")
def run_throughput(threads: Threads = HALF_THE_CORES, rounds: Rounds = 3) -> None:
    """Tokens a second and first tokens from 1, 4 and 16 clients, beside transformers in a Flask script."""
    _keep("throughput", throughput.measure(threads, rounds, say), threads, rounds)


@app.command("overhead")
def run_overhead(threads: Threads = HALF_THE_CORES, rounds: Rounds = 4) -> None:
    """What HTTP, gateway, gRPC and Triton cost on top of the bare engine."""
    _keep("overhead", overhead.measure(threads, rounds, say), threads, rounds)


@app.command("interference")
def run_interference(threads: Threads = HALF_THE_CORES, rounds: Rounds = 2) -> None:
    """The gaps between the tokens of eight streams before and while a prompt of 4,000 tokens joins."""
    _keep("interference", interference.measure(threads, rounds, say), threads, rounds)


@app.command("followup")
def run_followup(threads: Threads = HALF_THE_CORES, rounds: Rounds = 5) -> None:
    """How much sooner a second question about the same picture is answered."""
    _keep("followup", followup.measure(threads, rounds, say), threads, rounds)


@app.command("streams")
def run_streams(rounds: Rounds = 3) -> None:
    """How steadily one gateway worker passes on 256 answers at once, and in how much memory."""
    _keep("streams", streams.measure(rounds, say), 0, rounds)


@app.command("split")
def run_split(rounds: Rounds = 3) -> None:
    """Where the gateway's own processor time goes."""
    _keep("split", split.measure(rounds, say), 0, rounds)


@app.command("percore")
def run_percore(rounds: Rounds = 5) -> None:
    """Requests a second per core, beside the least that FastAPI and uvicorn need."""
    _keep("percore", percore.measure(rounds, say), 0, rounds)


@app.command("refusals")
def run_refusals(rounds: Rounds = 3) -> None:
    """How fast a wrong request is refused while large photos are decoded."""
    _keep("refusals", refusals.measure(rounds, say), 0, rounds)


@app.command("report")
def write_report() -> None:
    """Write the tables and the chart of docs/benchmarks.md from bench/results."""
    for path in report.write():
        say(f"Wrote {path}")


@app.command("soak")
def run_soak(
    minutes: Annotated[float, typer.Option(min=0.05, help="How long requests keep coming.")] = 20.0,
    threads: Threads = HALF_THE_CORES,
    seed: Annotated[int, typer.Option(help="What is asked, and who leaves when.")] = 0,
    checkpoint: Annotated[Path, typer.Option(exists=True, file_okay=False, help="What the engine runs.")] = DEMO,
) -> None:
    """Random joins, departures, deadlines and seeds in the bare engine: a JSON summary, and exit code 1 if it fails."""
    summary = soak.soak(build_of(checkpoint, FP32, say), minutes, threads, seed, say)
    typer.echo(json.dumps(asdict(summary), indent=1))
    if not summary.passed:
        raise typer.Exit(1)


def say(text: str) -> None:
    """Progress, with the seconds since the start."""
    typer.echo(f"[{time.monotonic() - _STARTED:4.0f} s] {text}", err=True)


def _keep(name: str, rows: list[Row], threads: int, rounds: int) -> None:
    model_threads = f" --threads {threads}" if threads else ""
    path = results.write(name, rows, f"python -m bench {name}{model_threads} --rounds {rounds}")
    say(f"Wrote {path}")


def main() -> None:
    """The entry of `python -m bench`."""
    app(prog_name="python -m bench")
