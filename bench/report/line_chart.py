"""Lines over one another as SVG: how long a first token takes as the load grows, for several numbers of replicas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 20, 70, 52
_INK, _GRID = "#24292f", "#d0d7de"
_COLOURS = ("#8c959f", "#bf3989", "#0969da", "#1a7f37")


@dataclass(frozen=True)
class Line:
    """Points from left to right; a point above the chart's top ends the line at its edge."""

    name: str
    points: Sequence[tuple[float, float]]


def curves(title: str, x_name: str, lines: Sequence[Line], top: float) -> str:
    """The SVG's text; x is a share shown in percent, y runs from 0 to `top` seconds."""
    left, right = min(x for line in lines for x, _ in line.points), max(x for line in lines for x, _ in line.points)

    def at(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + (x - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)
        return across, _HEIGHT - _BOTTOM - min(y, top) / top * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_text(20, 22, title, "start", 14, "bold")]
    for step in range(5):
        y = top * step / 4
        _, height = at(left, y)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{height:.1f}" y2="{height:.1f}" stroke="{_GRID}"/>'
        )
        parts.append(_text(_LEFT - 8, height + 4, f"{y:g} s", "end"))
    for x in sorted({x for line in lines for x, _ in line.points}):
        parts.append(_text(at(x, 0)[0], _HEIGHT - _BOTTOM + 18, f"{x:.0%}", "middle"))
    parts.append(_text(_WIDTH / 2, _HEIGHT - 12, x_name, "middle"))
    along = 20.0
    for colour, line in zip(_COLOURS, lines, strict=True):
        inside = [point for number, point in enumerate(line.points) if number == 0 or line.points[number - 1][1] <= top]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in inside))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
            for x, y in (at(*point) for point in inside if point[1] <= top)
        ]
        parts.append(f'<rect x="{along:.0f}" y="33" width="11" height="11" fill="{colour}"/>')
        parts.append(_text(along + 16, 43, line.name, "start"))
        along += 36 + 7 * len(line.name)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'role="img" font-family="system-ui, sans-serif">\n<title>{escape(title)}</title>\n'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
    )


def _text(x: float, y: float, text: str, anchor: str, size: int = 12, weight: str = "normal") -> str:
    style = f'text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" fill="{_INK}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'
