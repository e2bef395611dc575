"""The certificate's two drawings, as SVG that takes its colours from the page around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

_WIDTH, _LABEL, _RIGHT = 760, 250, 30
_ROW, _TOP = 26, 34
_LOWEST, _HIGHEST = -4, 1
"""The axis of errors, in powers of ten of what is allowed; what lies beyond is drawn at its end."""


@dataclass(frozen=True)
class Dot:
    """One comparison: its errors as multiples of what is allowed, and what a pointer over it is told."""

    worst: float
    typical: float
    passed: bool
    title: str


@dataclass(frozen=True)
class Bar:
    """A share between 0 and 1, and how much of it is allowed."""

    label: str
    share: float
    allowed: float
    passed: bool


def error_plot(rows: Sequence[tuple[str, Sequence[Dot]]]) -> Markup:
    """A row for each kind of stage, a dot for each conversation: filled the worst error, hollow the typical one."""
    height = _TOP + _ROW * len(rows) + 30
    parts = [Markup("")]
    for power in range(_LOWEST, _HIGHEST + 1):
        x, is_limit = _on_axis(10.0**power), power == 0
        kind, text = ("limit", "allowed") if is_limit else ("grid", _share_of(power))
        parts.append(_line(x, _TOP - 8, x, height - 26, kind))
        parts.append(_text(x, _TOP - 16, text, "middle", "tick limit-text" if is_limit else "tick"))
    for index, (label, dots) in enumerate(rows):
        y = _TOP + _ROW * index + _ROW // 2
        parts.append(_text(_LABEL - 14, y + 4, label, "end", "label"))
        parts.append(_line(_LABEL, y, _WIDTH - _RIGHT, y, "row"))
        parts += [_circle(_on_axis(dot.typical), y, "typical", dot.title) for dot in dots]
        parts += [_circle(_on_axis(dot.worst), y, "worst" if dot.passed else "worst bad", dot.title) for dot in dots]
    legend_y = height - 8
    parts += [_circle(_LABEL + 4, legend_y - 4, "worst", "worst"), _text(_LABEL + 14, legend_y, "worst error", "start")]
    parts += [_circle(_LABEL + 124, legend_y - 4, "typical", "typical")]
    parts += [_text(_LABEL + 134, legend_y, "typical (median) error", "start")]
    return _svg(height, "Errors of every stage, as multiples of what is allowed", parts)


def share_plot(bars: Sequence[Bar]) -> Markup:
    """A bar for each share of things unchanged, with a mark at the least that is allowed."""
    height = _TOP + _ROW * len(bars) + 6
    width = _WIDTH - _RIGHT - _LABEL
    parts = [Markup("")]
    for tenth in range(0, 11, 2):
        x = _LABEL + width * tenth / 10
        parts.append(_line(x, _TOP - 8, x, height - 4, "grid"))
        parts.append(_text(x, _TOP - 16, f"{10 * tenth} %", "middle", "tick"))
    for index, bar in enumerate(bars):
        y = _TOP + _ROW * index
        kept, limit = max(0.0, 1 - bar.share), _LABEL + width * max(0.0, 1 - bar.allowed)
        parts.append(_text(_LABEL - 14, y + 17, bar.label, "end", "label"))
        parts.append(
            Markup('<rect class="{}" x="{}" y="{}" width="{:.1f}" height="14" rx="2"><title>{}</title></rect>').format(
                "bar" if bar.passed else "bar bad", _LABEL, y + 6, width * kept, f"{100 * kept:.1f} % unchanged"
            )
        )
        parts.append(_line(limit, y + 2, limit, y + 24, "limit"))
    return _svg(height, "Greedy answers and tokens that stayed as they were", parts)


def _on_axis(ratio: float) -> float:
    """The place of an error on the axis; zero, and what is too small to tell from it, at the left end."""
    if math.isnan(ratio) or ratio >= 10.0**_HIGHEST:
        power = float(_HIGHEST)
    else:
        power = max(float(_LOWEST), math.log10(ratio)) if ratio > 0 else float(_LOWEST)
    return _LABEL + (power - _LOWEST) / (_HIGHEST - _LOWEST) * (_WIDTH - _RIGHT - _LABEL)


def _share_of(power: int) -> str:
    return f"{10.0**power:g}x"


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    text = '<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'
    return Markup(text).format(kind, x1, y1, x2, y2)


def _text(x: float, y: float, words: str, anchor: str, kind: str = "tick") -> Markup:
    text = '<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>'
    return Markup(text).format(kind, x, y, anchor, words)


def _circle(x: float, y: float, kind: str, title: str) -> Markup:
    text = '<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="5"><title>{}</title></circle>'
    return Markup(text).format(kind, x, y, title)


def _svg(height: int, title: str, parts: Sequence[Markup]) -> Markup:
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(_WIDTH, height, escape(title))
    return head + Markup("\n").join(parts) + Markup("</svg>")
