"""One bar chart as SVG: how many times the rival's tokens a second, for each number of clients and each precision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 70, 42
_BAR, _GAP = 52, 8
_INK, _GRID = "#24292f", "#d0d7de"
_COLOURS = ("#8c959f", "#0969da", "#1a7f37")


@dataclass(frozen=True)
class Bar:
    """One bar: its height, and the lowest and highest measured."""

    height: float
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    """Bars that stand together; one for each series, or None where nothing was measured."""

    label: str
    bars: Sequence[Bar | None]


def bar_chart(title: str, series: Sequence[str], groups: Sequence[Group]) -> str:
    """The SVG's text; the first series is drawn in grey, as what the others are held against."""
    step = 1 if _highest(groups) <= 5 else 2
    top = step * math.ceil(_highest(groups) / step)
    scale = (_HEIGHT - _TOP - _BOTTOM) / top
    floor = _HEIGHT - _BOTTOM
    parts = [_text(_LEFT - 36, 22, title, "start", 14, "bold")]
    parts += _legend(series)
    for value in range(0, top + 1, step):
        y = floor - value * scale
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_GRID}"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{value}×", "end"))
    room = (_WIDTH - _LEFT - _RIGHT) / len(groups)
    for number, group in enumerate(groups):
        middle = _LEFT + room * (number + 0.5)
        parts.append(_text(middle, floor + 22, group.label, "middle"))
        left = middle - (len(series) * (_BAR + _GAP) - _GAP) / 2
        for index, bar in enumerate(group.bars):
            if bar is not None:
                parts += _bar(bar, left + index * (_BAR + _GAP), floor, scale, _COLOURS[index])
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'role="img" font-family="system-ui, sans-serif">\n<title>{escape(title)}</title>\n'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
    )


def _bar(bar: Bar, x: float, floor: float, scale: float, colour: str) -> list[str]:
    """The bar, the whisker from lowest to highest, and its height in figures."""
    y, middle = floor - bar.height * scale, x + _BAR / 2
    low, high = floor - bar.low * scale, floor - bar.high * scale
    parts = [
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{_BAR}" height="{bar.height * scale:.1f}" fill="{colour}"/>',
        _text(middle, high - 6, f"{bar.height:.1f}×", "middle", 13, "bold"),
    ]
    if bar.high > bar.low:
        parts.append(
            f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{_INK}" '
            'stroke-width="1.5"/>'
        )
    return parts


def _legend(series: Sequence[str]) -> list[str]:
    parts, x = [], _LEFT - 36
    for colour, name in zip(_COLOURS, series, strict=False):
        parts.append(f'<rect x="{x}" y="33" width="11" height="11" fill="{colour}"/>')
        parts.append(_text(x + 16, 43, name, "start"))
        x += 36 + 7 * len(name)
    return parts


def _highest(groups: Sequence[Group]) -> float:
    return max(bar.high for group in groups for bar in group.bars if bar is not None)


def _text(x: float, y: float, text: str, anchor: str, size: int = 12, weight: str = "normal") -> str:
    style = f'text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" fill="{_INK}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'
