"""The tables and the chart of docs/scaling.md: what a card does, whether the model is right, and the simulation."""

from __future__ import annotations

from collections.abc import Sequence

from bench import records
from bench.records import Row
from bench.report.charts import first_token_chart
from bench.report.markdown import NOT_MEASURED, columns, place, table
from bench.simulation.capacity import GPUS, PRECISIONS, capacity, gpus_for, requests_per_s, slots_of
from bench.simulation.step_times import StepTimes

PROMPT_TOKENS, NEW_TOKENS = 128, 64
"""Of the requests whose speed was measured."""
_WANTED_PER_S = (1, 10, 100, 1000)
_CARD = (
    ("card", "{card}"),
    ("weights", "{weights}"),
    ("slots at 4,096 tokens", "{slots_4096}"),
    ("at 8,192", "{slots_8192}"),
    ("requests of 1,024 tokens", "{typical}"),
    ("rows used", "{rows}"),
    ("requests a second", "{requests_per_s:.1f}"),
    ("tokens a second", "{tokens_per_s:,.0f}"),
    ("image tokens a second", "{image_tokens_per_s:,.0f}"),
    ("first token, no queue", "{first_token_s:.2f} s"),
)
_CHECK = (
    ("precision", "{precision}"),
    ("requests at a time", "{count}"),
    ("measured", "{measured:.2f}"),
    ("by the model", "{modelled:.2f}"),
    ("off by", "{off:+.0%}"),
)
_SIMULATION = (
    ("replicas", "{replicas}"),
    ("gateways", "{gateways}"),
    ("load", "{load:.0%}"),
    ("requests", "{requests:,}"),
    ("refused", "{refused:.1%}"),
    ("late", "{late:.1%}"),
    ("first token p50", "{first_token_p50_s:.2f} s"),
    ("p95", "{first_token_p95_s:.2f} s"),
)


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
    header, rows = [title for title, _ in _CARD], []
    for gpu in GPUS:
        for precision in PRECISIONS:
            slots = {f"slots_{context}": slots_of(gpu, precision, context) or "none" for context in (4096, 8192)}
            slots["typical"] = slots_of(gpu, precision, 8192, short_tokens=1024) or "none"
            found = capacity(gpu, precision)
            fields = {"card": gpu.name, "weights": precision, **slots, **(vars(found) if found else {})}
            cells = [cell.format_map(fields) for _, cell in (_CARD if found else _CARD[:5])]
            rows.append(cells if found else [*cells, "too slow or too small", *[""] * 4])
    return table(header, rows)


def _cards_for_a_load() -> str:
    found = {gpu.name: capacity(gpu, "bf16") for gpu in GPUS}
    needed = ([name, *(f"{gpus_for(rate, one):,}" for rate in _WANTED_PER_S)] for name, one in found.items() if one)
    return table(["card, bf16", *(f"{rate}/s" for rate in _WANTED_PER_S)], needed)


def _check() -> str:
    rows = [
        row | {"count": count, "measured": measured, "modelled": modelled, "off": modelled / measured - 1}
        for row in records.read("steps")
        for count, measured, modelled in speedups(row)
    ]
    return _sourced(rows, _CHECK)


def _simulated() -> list[Row]:
    """Without short runs at full load and above: queues grow there for as long as a run lasts."""
    rows = records.read("simulation")
    longest = max((row["seconds"] for row in rows), default=0)
    return [row for row in rows if row["load"] < 1 or row["seconds"] == longest]


def _sourced(rows: list[Row], cells: Sequence[Sequence[str]]) -> str:
    return f"{columns(rows, cells)}\n\n{place(rows[0])}, {rows[0]['run']['cpu']}." if rows else NOT_MEASURED


BLOCKS = {
    "cards": _cards,
    "cards for a load": _cards_for_a_load,
    "model check": _check,
    "simulation": lambda: _sourced(_simulated(), _SIMULATION),
}
"""What makes each generated block of docs/scaling.md."""
