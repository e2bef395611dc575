"""The command line of the measurements: `python -m bench`."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bench import records
from bench.checkpoints.builds import CACHE, FP32, build_of
from bench.checkpoints.synthetic import DEMO, write_like
from bench.gpu import check
from bench.measure import (
    cpu_split,
    decode_steps,
    export_cost,
    followup,
    interference,
    overhead,
    per_core,
    rejection_latency,
    replicas,
    soak,
    speculative,
    step_profile,
    stream_fanout,
    throughput,
)
from bench.records import Row
from bench.report import tables
from bench.simulation import simulate
from export.precision import Precision
from glmserve.system.cpu_count import cores

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Measure the service beside the script it replaces, and beside its own bare engine; into bench/results.",
)

HALF_THE_CORES = max(1, cores() // 2)
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


@app.command("guesses")
def run_guesses(threads: Threads = HALF_THE_CORES, rounds: Rounds = 3) -> None:
    """What guessing ahead brings to a request that runs alone, on random weights and on the demo's answers."""
    _keep("guesses", speculative.measure(threads, rounds, say), threads, rounds)


@app.command("profile")
def run_profile(threads: Threads = HALF_THE_CORES, rounds: Rounds = 3) -> None:
    """Where one decode step's time goes, and how far it is from the time memory needs for what it reads."""
    _keep("profile", step_profile.measure(threads, rounds, say), threads, rounds)


@app.command("checkpoint")
def write_checkpoint(
    out: Annotated[Path, typer.Argument(help="Where the checkpoint is to be; must not exist yet.")],
    model: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="A folder with the model's config and tokenizer.")
    ],
    shards: Annotated[int, typer.Option(min=1, help="Files that the weights are spread over.")] = 4,
) -> None:
    """Write a checkpoint of a model's full size with random bf16 weights; the real model's takes 20.6 GB."""
    write_like(model, out, shards)


@app.command("export-cost")
def run_export_cost(
    checkpoint: Annotated[Path, typer.Option(exists=True, file_okay=False, help="What is built.")],
    scratch: Annotated[Path, typer.Option(help="A folder with room for a copy, on the checkpoint's file system.")],
    precision: Annotated[list[Precision], typer.Option(help="May be given several times.")],
) -> None:
    """Peak memory of a build, and its time beside a plain copy of the checkpoint."""
    rows = export_cost.measure(checkpoint, scratch, precision, say)
    listed = " ".join(f"--precision {name}" for name in precision)
    path = records.write("export_cost", rows, f"python -m bench export-cost --checkpoint DIR --scratch DIR {listed}")
    say(f"Wrote {path}")


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


@app.command("streams")
def run_streams(rounds: Rounds = 3) -> None:
    """How steadily one gateway worker passes on 256 answers at once, and in how much memory."""
    _keep("streams", stream_fanout.measure(rounds, say), 0, rounds)


@app.command("split")
def run_split(rounds: Rounds = 3) -> None:
    """Where the gateway's own processor time goes."""
    _keep("split", cpu_split.measure(rounds, say), 0, rounds)


@app.command("percore")
def run_percore(rounds: Rounds = 5) -> None:
    """Requests a second per core, beside the least that FastAPI and uvicorn need."""
    _keep("percore", per_core.measure(rounds, say), 0, rounds)


@app.command("replicas")
def run_replicas() -> None:
    """Three Tritons and two gateways: what they add up to, and what is lost when one dies or a new build goes out."""
    say(f"Wrote {records.write('replicas', replicas.measure(say), 'python -m bench replicas')}")


@app.command("steps")
def run_steps(threads: Threads = HALF_THE_CORES) -> None:
    """How long the engine's steps take here; what the simulation and docs/scaling.md reckon with."""
    command = f"python -m bench steps --threads {threads}"
    say(f"Wrote {records.write('steps', decode_steps.measure(threads, say), command)}")


@app.command("simulate")
def run_simulation(
    replicas: Annotated[int, typer.Option(min=1, help="The largest number of replicas.")] = 1000,
    seconds: Annotated[float, typer.Option(min=1, help="Simulated seconds of each run, fewer with many.")] = 60.0,
) -> None:
    """The engine's scheduler and the gateways' choices in simulated time, with up to 1,000 replicas."""
    command = f"python -m bench simulate --replicas {replicas} --seconds {seconds:g}"
    say(f"Wrote {records.write('simulation', simulate.measure(seconds, replicas, say), command)}")


@app.command("refusals")
def run_refusals(rounds: Rounds = 3) -> None:
    """How fast a wrong request is refused while large photos are decoded."""
    _keep("refusals", rejection_latency.measure(rounds, say), 0, rounds)


@app.command("report")
def write_report() -> None:
    """Write the tables and the chart of docs/benchmarks.md from bench/results."""
    for path in tables.write():
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
    path = records.write(name, rows, f"python -m bench {name}{model_threads} --rounds {rounds}")
    say(f"Wrote {path}")


def main() -> None:
    """The entry of `python -m bench`."""
    app(prog_name="python -m bench")
