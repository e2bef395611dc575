"""The tables and the chart of docs/scaling.md: what a card does, whether the model is right, and the simulation."""

from __future__ import annotations

from collections.abc import Callable

from bench import records
from bench.records import Row
from bench.report.charts import first_token_chart
from bench.report.markdown import NOT_MEASURED, columns, table
from bench.simulation.capacity import GPUS, WEIGHT_BYTES, Demand, Gpu, capacity, gpus_for, requests_per_s, slots_of
from bench.simulation.step_times import StepTimes

PROMPT_TOKENS, NEW_TOKENS = 128, 64
"""Of the requests whose speed was measured."""
WANTED_PER_S = (1, 10, 100, 1000)


def chart() -> str | None:
    """The chart's SVG; None where nothing was simulated."""
    rows = _simulated()
    return first_token_chart(rows) if rows else None


def speedups(row: Row) -> list[tuple[int, float, float]]:
    """For each number of requests at a time: tokens a second over those of one, as measured and by the model."""
    times, measured = StepTimes(**row["times"]), row["tokens_per_s"]
    return [
        (int(count), value / measured["1"], modelled_speedup(times, int(count), row["image_s"]))
        for count, value in measured.items()
        if count != "1"
    ]


def modelled_speedup(times: StepTimes, count: int, image_s: float) -> float:
    """Tokens a second of `count` of the measured requests at a time, over those of one."""
    many, one = (requests_per_s(times, rows, PROMPT_TOKENS, NEW_TOKENS, image_s) for rows in (count, 1))
    return many / one


def _cards() -> str:
    header = ["card", "weights", "slots at 4,096 tokens", "at 8,192", "rows used", "requests a second"]
    header += ["tokens a second", "image tokens a second", "first token, no queue"]
    return "\n".join(table(header, (_card(gpu, precision) for gpu in GPUS for precision in WEIGHT_BYTES)))


def _card(gpu: Gpu, precision: str) -> list[str]:
    slots = [str(slots_of(gpu, precision, context) or "none") for context in (4096, 8192)]
    found = capacity(gpu, precision, Demand())
    if not found:
        return [gpu.name, precision, *slots, "too slow or too small", "", "", "", ""]
    figures = [f"{found.rows}", f"{found.requests_per_s:.1f}", f"{found.tokens_per_s:,.0f}"]
    figures += [f"{found.image_tokens_per_s:,.0f}", f"{found.first_token_s:.2f} s"]
    return [gpu.name, precision, *slots, *figures]


def _cards_for_a_load() -> str:
    capacities = {gpu.name: capacity(gpu, "bf16") for gpu in GPUS}
    header = ["card, bf16", *(f"{wanted}/s" for wanted in WANTED_PER_S)]
    return "\n".join(
        table(header, ([n, *(f"{gpus_for(r, one):,}" for r in WANTED_PER_S)] for n, one in capacities.items() if one))
    )


def _check() -> str:
    rows = records.read("steps")
    if not rows:
        return NOT_MEASURED
    lines = [
        (row["precision"], f"{count}", f"{measured:.2f}", f"{modelled:.2f}", f"{modelled / measured - 1:+.0%}")
        for row in rows
        for count, measured, modelled in speedups(row)
    ]
    header = ("precision", "requests at a time", "measured", "by the model", "off by")
    return "\n".join([*table(header, lines), "", _source(rows[0])])


def _simulation() -> str:
    rows = _simulated()
    if not rows:
        return NOT_MEASURED
    cells: dict[str, Callable[[Row], str] | str] = {
        "replicas": "{replicas}",
        "gateways": "{gateways}",
        "load": "{load:.0%}",
        "requests": "{requests:,}",
        "refused": "{refused:.1%}",
        "late": "{late:.1%}",
        "first token p50": "{first_token_p50_s:.2f} s",
        "p95": "{first_token_p95_s:.2f} s",
    }
    return "\n".join([*columns(rows, cells), "", _source(rows[0])])


def _simulated() -> list[Row]:
    """The runs that mean something: at full load and above, queues grow for as long as a run lasts, so short runs are
    left out."""
    rows = records.read("simulation")
    longest = max((row["seconds"] for row in rows), default=0)
    return [row for row in rows if row["load"] < 1 or row["seconds"] == longest]


def _source(row: Row) -> str:
    run = row["run"]
    return f"`{run['command']}` at commit `{run['commit']}` on {run['date']}, {run['cpu']}."


BLOCKS = {"cards": _cards, "cards for a load": _cards_for_a_load, "model check": _check, "simulation": _simulation}
"""What makes each generated block of docs/scaling.md."""
