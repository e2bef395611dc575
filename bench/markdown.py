"""Markdown tables of results: figures with their spread, and goals that say whether they were missed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.records import Row

NOT_MEASURED = "Not measured yet."


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A whole table."""
    return "\n".join([_line(header), "|---" * len(header) + "|", *map(_line, rows)])


def columns(rows: Sequence[Row], cells: Sequence[Sequence[str]]) -> str:
    """A table with a line for each row; `cells` has each column's title and the cell below it, which stays empty where
    the row lacks its fields."""
    return table([title for title, _ in cells], ([_filled(cell, row) for _, cell in cells] for row in rows))


def lines(row: Row, title: str, figures: Sequence[Sequence[str]]) -> str:
    """A table with a line for each figure of a row: its label, its cell, and its goal if it has one."""
    cells = []
    for label, cell, *goals in figures:
        shown = goal(goals[0], row.get(cell.partition(":")[0], 0)) if goals else ""
        cells.append((label.format_map(row), _filled(cell, row), shown))
    return table((title, "measured", "goal"), cells)


def figure(row: Row, name: str) -> str:
    """The figure `name:format` of a row: in bold, and in brackets the lowest and the highest, where there are some."""
    name, _, style = name.partition(":")
    bold = f"**{_styled(row[name], style)}**"
    if f"{name}_spread" not in row:
        return bold
    low, high = row[f"{name}_spread"]
    return f"{bold} ({_styled(low, style)} to {_styled(high, style)})"


def goal(text: str, found: float) -> str:
    """A goal `<= bound format`, and whether the figure missed it; any other text is shown as it is."""
    sign, _, bound = text.partition(" ")
    if sign not in ("<=", ">="):
        return text
    number, _, style = bound.partition(" ")
    is_met = found <= float(number) if sign == "<=" else found >= float(number)
    return f"{'≤' if sign == '<=' else '≥'} {_styled(float(number), style)}{'' if is_met else ' (missed)'}"


def source(row: Row) -> str:
    """The run that a row comes from, in a sentence."""
    run = row["run"]
    rounds = f"{row['rounds']} rounds, " if "rounds" in row else ""
    threads = f"{row['threads']} model thread(s), " if row.get("threads") else ""
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    command = "`{command}`, measured at `{commit}`, {date}".format_map(run)
    return f"{command}: {rounds}{threads}{run['cpu']} with {run['cores']} cores; {versions}."


def _filled(cell: str, row: Row) -> str:
    if "{" not in cell:
        return figure(row, cell)
    try:
        return cell.format_map(row)
    except KeyError:
        return ""


def _styled(value: float, style: str) -> str:
    """`style` is a format, and after a blank a unit."""
    style, _, unit = style.partition(" ")
    return f"{value:{style}}" + (f" {unit}" if unit else "")


def _line(cells: Iterable[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"
