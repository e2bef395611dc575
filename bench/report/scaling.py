"""The figures of docs/scaling.md: what a card does, whether the model is right, and the simulation."""

from __future__ import annotations

from bench import records
from bench.records import Row
from bench.simulation.capacity import GPUS, PRECISIONS, capacity, gpus_for, requests_per_s, slots_of
from bench.simulation.step_times import StepTimes

PROMPT_TOKENS, NEW_TOKENS = 128, 64
"""Of the requests whose speed was measured."""
_WANTED_PER_S = (1, 10, 100, 1000)
_CANNOT = {"rows": "too slow or too small"}


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


def checked() -> list[Row]:
    return [
        row | {"count": count, "measured": measured, "modelled": modelled, "off": modelled / measured - 1}
        for row in records.read("steps")
        for count, measured, modelled in speedups(row)
    ]


def simulated() -> list[Row]:
    """Without short runs at full load and above: queues grow there for as long as a run lasts."""
    rows = records.read("simulation")
    longest = max((row["seconds"] for row in rows), default=0)
    return [row for row in rows if row["load"] < 1 or row["seconds"] == longest]


def cards() -> list[Row]:
    """A row for each card and precision; one that cannot serve says so in place of its figures."""
    rows = []
    for gpu in GPUS:
        for precision in PRECISIONS:
            slots = {f"slots_{context}": slots_of(gpu, precision, context) or "none" for context in (4096, 8192)}
            typical = slots_of(gpu, precision, 8192, short_tokens=1024)
            slots["typical"] = f"{typical:,}" if typical else "none"
            found = capacity(gpu, precision)
            rows.append({"card": gpu.name, "weights": precision, **slots, **(vars(found) if found else _CANNOT)})
    return rows


def cards_for_a_load() -> list[Row]:
    found = {gpu.name: capacity(gpu, "bf16") for gpu in GPUS}
    wanted = {f"{rate}/s": rate for rate in _WANTED_PER_S}
    return [
        {"card, bf16": name} | {title: f"{gpus_for(rate, one):,}" for title, rate in wanted.items()}
        for name, one in found.items()
        if one
    ]
