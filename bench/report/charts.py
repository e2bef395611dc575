"""The charts of docs/benchmarks.md and docs/scaling.md, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

from bench.checkpoints.builds import FP32, INT8
from bench.records import Row
from export.certificate.plot_style import BLUE, GREEN, GREY, INK, ORANGE, PINK, figure, svg

_WIDTH_IN, _HEIGHT_IN = 7.0, 3.4
_BAR_WIDTH = 0.27
_TOP_S = 4.0


def throughput_chart(rows: Sequence[Row]) -> str:
    """Tokens a second over the baseline's: a group of bars for each number of clients, with the rounds' spread."""
    clients = sorted({row["clients"] for row in rows})
    plot = figure(_WIDTH_IN, _HEIGHT_IN)
    axes = plot.add_subplot()
    axes.set_title("Tokens a second, beside transformers in a Flask script", pad=26)
    axes.bar([at - _BAR_WIDTH - 0.02 for at in range(len(clients))], 1, _BAR_WIDTH, color=GREY)
    series = {"transformers, fp32": GREY}
    for number, (precision, colour) in enumerate(((FP32, BLUE), (INT8, GREEN))):
        for row in (row for row in rows if row["precision"] == precision):
            series[f"this service, {precision}"] = colour
            at, ratio = clients.index(row["clients"]) + number * (_BAR_WIDTH + 0.02), row["tokens_per_s_ratio"]
            low, high = row["tokens_per_s_ratio_spread"]
            axes.bar(at, ratio, _BAR_WIDTH, color=colour, yerr=[[ratio - low], [high - ratio]], ecolor=INK)
            axes.annotate(f"{ratio:.1f}×", (at, high), (0, 3), textcoords="offset points", ha="center", weight="bold")
    for at in range(len(clients)):
        axes.annotate("1×", (at - _BAR_WIDTH - 0.02, 1), (0, 3), textcoords="offset points", ha="center", weight="bold")
    axes.set_xticks(range(len(clients)), [f"{count} client{'s' * (count > 1)}" for count in clients])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    axes.grid(True, axis="y")
    axes.margins(y=0.12)
    keys = [axes.plot([], [], "s", color=colour, label=name)[0] for name, colour in series.items()]
    axes.legend(handles=keys, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0, handletextpad=0.2)
    return svg(plot, "Tokens a second by number of clients, over those of transformers in a Flask script")


def peers_chart(rows: Sequence[Row]) -> str:
    """Tokens a second over each peer's on one model thread, with the rounds' spread; the scale is logarithmic."""
    rows = [row for row in rows if row["model_threads"] == 1]
    clients = sorted({row["clients"] for row in rows})
    pairs = list(dict.fromkeys((row["ours"], row["theirs"]) for row in rows))
    plot = figure(_WIDTH_IN, _HEIGHT_IN + 0.2 * len(pairs))
    axes = plot.add_subplot(yscale="log")
    axes.set_title("Tokens a second, beside vLLM and llama.cpp on one thread", pad=8 + 16 * len(pairs))
    width = 0.8 / len(pairs)
    for number, (pair, colour) in enumerate(zip(pairs, (GREEN, PINK, ORANGE, BLUE), strict=False)):
        for row in (row for row in rows if (row["ours"], row["theirs"]) == pair):
            at = clients.index(row["clients"]) + (number - (len(pairs) - 1) / 2) * width
            ratio, (low, high) = row["tokens_per_s_ratio"], row["tokens_per_s_ratio_spread"]
            axes.bar(at, ratio - 1, width * 0.92, 1, color=colour, yerr=[[ratio - low], [high - ratio]], ecolor=INK)
            place, above = (high, 3) if ratio >= 1 else (low, -12)
            axes.annotate(f"{ratio:.2g}×", (at, place), (0, above), textcoords="offset points", ha="center")
        axes.plot([], [], "s", color=colour, label="{}, beside {}".format(*pair))
    axes.axhline(1, color=GREY)
    axes.set_xticks(range(len(clients)), [f"{count} client{'s' * (count > 1)}" for count in clients])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    axes.yaxis.set_minor_formatter(lambda _value, _: "")
    axes.margins(y=0.15)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=1, borderaxespad=0, handletextpad=0.2)
    return svg(plot, "Tokens a second by number of clients, over those of vLLM and of llama.cpp")


def first_token_chart(rows: Sequence[Row]) -> str:
    """How long a first token takes as the load grows, a line for each number of replicas; a line ends at the top."""
    plot = figure(_WIDTH_IN, _HEIGHT_IN)
    axes = plot.add_subplot(ylim=(0, _TOP_S))
    axes.set_title("First token of the slowest twentieth, simulated", pad=26)
    for replicas, colour in zip(sorted({row["replicas"] for row in rows}), (GREY, PINK, BLUE, GREEN), strict=False):
        points = [(row["load"], row["first_token_p95_s"]) for row in rows if row["replicas"] == replicas]
        label = f"{replicas} replica{'s' * (replicas > 1)}"
        axes.plot(*zip(*points, strict=True), "o-", color=colour, markersize=5, label=label)
    axes.set_xticks(sorted({row["load"] for row in rows}))
    axes.set_xlabel("offered load, of what the slots can do")
    axes.xaxis.set_major_formatter(lambda load, _: f"{load:.0%}")
    axes.yaxis.set_major_formatter(lambda seconds, _: f"{seconds:g} s")
    axes.grid(True, axis="y")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0)
    return svg(plot, "Seconds to the first token by offered load, for several numbers of replicas")
