"""The certificate's two plots: errors as multiples of their tolerance, and shares of unchanged answers and tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from export.certificate.plot_style import BLUE, INK, ORANGE, QUIET, RED, figure, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH_IN, _ROW_IN, _AXIS_IN, _LEGEND_IN = 8.6, 0.27, 0.4, 0.3
_FILLED: dict[str, Any] = {"marker": "o", "markersize": 7, "markeredgewidth": 0, "alpha": 0.75, "linestyle": "none"}
_HOLLOW: dict[str, Any] = {
    "marker": "o",
    "markersize": 7,
    "markerfacecolor": "none",
    "markeredgecolor": QUIET,
    "linestyle": "none",
}
_LOWEST, _HIGHEST = 1e-4, 10.0
"""The axis of errors, in multiples of the tolerance; what lies beyond is drawn at its end."""


@dataclass(frozen=True)
class Dot:
    """One comparison: its errors as multiples of the tolerance, and the tooltip."""

    worst: float
    typical: float
    passed: bool
    title: str


@dataclass(frozen=True)
class Bar:
    """A share between 0 and 1 that changed, and how much of it is allowed."""

    label: str
    share: float
    allowed: float
    passed: bool


def error_plot(rows: Sequence[tuple[str, Sequence[Dot]]]) -> str:
    """A row for each kind of stage, two dots for each conversation: filled the worst error, hollow the typical one."""
    plot = figure(_WIDTH_IN, _ROW_IN * len(rows) + _AXIS_IN + _LEGEND_IN)
    axes = plot.add_subplot(xscale="log", xlim=(_LOWEST, _HIGHEST))
    _label_rows(axes, [label for label, _ in rows])
    axes.grid(True)
    ticks = [1e-4, 1e-3, 1e-2, 1e-1, 1, 10]
    axes.set_xticks(ticks, ["tolerance" if tick == 1 else f"{tick:g}x" for tick in ticks])
    axes.xaxis.get_ticklabels()[ticks.index(1)].set(color=ORANGE, fontweight="bold")
    axes.axvline(1, color=ORANGE, linewidth=2)
    tooltips: dict[str, str] = {}
    for y, (_, dots) in enumerate(rows):
        for dot in dots:
            name = f"dot-{len(tooltips)}"
            axes.plot(_on_axis(dot.typical), y, **_HOLLOW, gid=f"{name}-typical")
            axes.plot(_on_axis(dot.worst), y, **_FILLED, color=BLUE if dot.passed else RED, gid=f"{name}-worst")
            tooltips |= {f"{name}-typical": dot.title, f"{name}-worst": dot.title}
    worst = axes.plot([], [], **_FILLED, color=BLUE, label="worst error")
    typical = axes.plot([], [], **_HOLLOW, label="typical (median) error")
    axes.legend(handles=[*worst, *typical], loc="upper left", bbox_to_anchor=(0, 0), ncols=2)
    _show_whole(axes)
    return svg(plot, "Errors of every stage, as multiples of the tolerance", tooltips)


def share_plot(bars: Sequence[Bar]) -> str:
    """A bar for each share of things unchanged, with a mark at the least that is allowed."""
    plot = figure(_WIDTH_IN, _ROW_IN * len(bars) + _AXIS_IN)
    axes = plot.add_subplot(xlim=(0, 1))
    _label_rows(axes, [bar.label for bar in bars])
    axes.grid(True, axis="x")
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    tooltips: dict[str, str] = {}
    for y, bar in enumerate(bars):
        kept = max(0.0, 1 - bar.share)
        axes.barh(y, kept, 0.55, color=BLUE if bar.passed else RED, gid=f"bar-{y}")
        axes.plot([max(0.0, 1 - bar.allowed)] * 2, [y - 0.42, y + 0.42], color=ORANGE, linewidth=2)
        tooltips[f"bar-{y}"] = f"{100 * kept:.1f} % unchanged"
    _show_whole(axes)
    return svg(plot, "Greedy answers and tokens that stayed as they were", tooltips)


def _label_rows(axes: Axes, labels: Sequence[str]) -> None:
    """Rows from the top down, the axis above them."""
    axes.set_ylim(max(len(labels), 1) - 0.5, -0.5)
    axes.set_yticks(range(len(labels)), labels, color=INK)
    axes.xaxis.tick_top()
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="y", pad=10)


def _show_whole(axes: Axes) -> None:
    """Draws dots on the edge as whole ones."""
    for artist in axes.findobj():
        artist.set_clip_on(False)


def _on_axis(ratio: float) -> float:
    """Where an error stands on the axis: zero, and what is too small to tell from it, at the left end."""
    return _HIGHEST if math.isnan(ratio) else min(max(ratio, _LOWEST), _HIGHEST)
