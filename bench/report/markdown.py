"""Markdown tables of results: figures with their spread, and goals that say whether they were missed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from bench.records import Row

NOT_MEASURED = "Not measured yet."
Goal = Callable[[float], str]
Line = tuple[str, str] | tuple[str, str, Goal]
"""A label with fields of the row in it, the figure as `name:format`, and its goal if it has one."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [_line(header), "|---" * len(header) + "|", *(_line(cells) for cells in rows)]


def columns(rows: Sequence[Row], cells: Mapping[str, Callable[[Row], str] | str]) -> list[str]:
    """A table with a line for each row; `cells` has each column's title and what stands below it, as a function of the
    row or as the row's fields in a format."""
    makers = [cell.format_map if isinstance(cell, str) else cell for cell in cells.values()]
    return table(list(cells), ([make(row) for make in makers] for row in rows))


def figures(title: str, rows: Sequence[Row], lines: Sequence[Line]) -> list[str]:
    """A table with a line for each figure, beside its goal."""
    cells = [
        (label.format_map(row), figure(row, name), goal[0](row[name.partition(":")[0]]) if goal else "")
        for row in rows
        for label, name, *goal in lines
    ]
    return table((title, "measured", "goal"), cells)


def figure(row: Row, name: str) -> str:
    """The figure `name:format` of a row: in bold, and in brackets the lowest and the highest, where there are some."""
    name, _, style = name.partition(":")
    bold = f"**{_styled(row[name], style)}**"
    if f"{name}_spread" not in row:
        return bold
    low, high = row[f"{name}_spread"]
    return f"{bold} ({_styled(low, style)} to {_styled(high, style)})"


def most(goal: float, style: str = "g") -> Goal:
    return lambda found: f"≤ {_styled(goal, style)}" + ("" if found <= goal else " (missed)")


def least(goal: float, style: str = "g") -> Goal:
    return lambda found: f"≥ {_styled(goal, style)}" + ("" if found >= goal else " (missed)")


def source(row: Row) -> str:
    """Where a row comes from, in a sentence."""
    run = row["run"]
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    rounds = f"{row['rounds']} rounds, " if "rounds" in row else ""
    threads = f"{row['threads']} model thread(s), " if row.get("threads") else ""
    place = f"`{run['command']}` at commit `{run['commit']}` on {run['date']}"
    return f"{place}: {rounds}{threads}{run['cpu']} with {run['cores']} cores; {versions}."


def _styled(value: float, style: str) -> str:
    """`style` is a format, and after a blank a unit."""
    style, _, unit = style.partition(" ")
    return f"{value:{style}}" + (f" {unit}" if unit else "")


def _line(cells: Iterable[str]) -> str:
    return "|" + "|".join(f" {cell.strip()} " if cell else " " for cell in cells) + "|"
