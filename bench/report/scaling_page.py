"""Writes the tables and the plot of docs/scaling.md: what a card does, whether the model is right, the simulation."""

from __future__ import annotations

from collections.abc import Callable

from bench import records
from bench.records import Row
from bench.report.line_chart import Line, curves
from bench.simulation.capacity import GPUS, WEIGHT_BYTES, Demand, capacity, gpus_for, requests_per_s, slots_of
from bench.simulation.step_times import StepTimes

PROMPT_TOKENS, NEW_TOKENS = 128, 64
"""Of the requests whose speed was measured."""
WANTED_PER_S = (1, 10, 100, 1000)
_TOP_S = 4.0
_NOTHING = "Not measured yet."


def chart() -> str | None:
    """The plot's SVG; None where nothing was simulated."""
    rows = _simulated()
    if not rows:
        return None
    lines = [
        Line(
            f"{replicas} replica" + ("s" if replicas > 1 else ""),
            [(row["load"], row["first_token_p95_s"]) for row in rows if row["replicas"] == replicas],
        )
        for replicas in sorted({row["replicas"] for row in rows})
    ]
    return curves(
        "First token of the slowest twentieth, simulated",
        "offered load, of what the slots can do",
        lines,
        _TOP_S,
    )


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


def blocks() -> dict[str, Callable[[], str]]:
    """What makes each generated block of docs/scaling.md."""
    return {"cards": _cards, "cards for a load": _cards_for_a_load, "model check": _check, "simulation": _simulation}


def _cards() -> str:
    demand = Demand()
    lines = [
        "| card | weights | slots at 4,096 tokens | at 8,192 | rows used | requests a second | tokens a second "
        "| picture tokens a second | first token, no queue |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for gpu in GPUS:
        for precision in WEIGHT_BYTES:
            found = capacity(gpu, precision, demand)
            slots = f"{slots_of(gpu, precision, 4096) or 'none'} | {slots_of(gpu, precision, 8192) or 'none'}"
            figures = (
                f"{found.rows} | {found.requests_per_s:.1f} | {found.tokens_per_s:,.0f} "
                f"| {found.image_tokens_per_s:,.0f} | {found.first_token_s:.2f} s"
                if found
                else "too slow or too small | | | |"
            )
            lines.append(f"| {gpu.name} | {precision} | {slots} | {figures} |")
    return "\n".join(lines)


def _cards_for_a_load() -> str:
    lines = [
        "| card, bf16 | " + " | ".join(f"{wanted}/s" for wanted in WANTED_PER_S) + " |",
        "|---|" + "---|" * len(WANTED_PER_S),
    ]
    for gpu in GPUS:
        one = capacity(gpu, "bf16")
        if one:
            counts = " | ".join(f"{gpus_for(wanted, one):,}" for wanted in WANTED_PER_S)
            lines.append(f"| {gpu.name} | {counts} |")
    return "\n".join(lines)


def _check() -> str:
    rows = records.read("steps")
    if not rows:
        return _NOTHING
    lines = ["| precision | requests at a time | measured | by the model | off by |", "|---|---|---|---|---|"]
    for row in rows:
        for count, measured, modelled in speedups(row):
            off = modelled / measured - 1
            lines.append(f"| {row['precision']} | {count} | {measured:.2f} | {modelled:.2f} | {off:+.0%} |")
    return "\n".join([*lines, "", _run(rows[0])])


def _simulation() -> str:
    rows = _simulated()
    if not rows:
        return _NOTHING
    lines = [
        "| replicas | gateways | load | requests | refused | late | first token p50 | p95 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['replicas']} | {row['gateways']} | {row['load']:.0%} | {row['requests']:,} | {row['refused']:.1%} "
            f"| {row['late']:.1%} | {row['first_token_p50_s']:.2f} s | {row['first_token_p95_s']:.2f} s |"
        )
    return "\n".join([*lines, "", _run(rows[0])])


def _simulated() -> list[Row]:
    """The runs that say something: from full load on lines grow for as long as a run lasts, so short ones do not."""
    rows = records.read("simulation")
    longest = max((row["seconds"] for row in rows), default=0)
    return [row for row in rows if row["load"] < 1 or row["seconds"] == longest]


def _run(row: Row) -> str:
    run = row["run"]
    return f"`{run['command']}` at commit `{run['commit']}` on {run['date']}, {run['cpu']}."
