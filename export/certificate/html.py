"""A certificate as a page to read: verdict, plots, every stage and versions; it loads nothing from elsewhere."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from export.certificate.plots import Bar, Dot, error_plot, share_plot

_TEMPLATE = "certificate.html.jinja"
_SHARE = ": share changed"


def page(certificate: Mapping[str, Any]) -> str:
    """The HTML page of a certificate as `write_certificate` puts it together."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["figure"] = _figure
    stages = certificate["stages"]
    errors = [stage for stage in stages if not stage["name"].endswith(_SHARE)]
    shares = [stage for stage in stages if stage["name"].endswith(_SHARE)]
    return environment.get_template(_TEMPLATE).render(
        certificate=certificate,
        failed=[stage["name"] for stage in stages if not stage["passed"]],
        errors=Markup(error_plot(_rows(errors))),
        shares=Markup(share_plot([_bar(stage) for stage in shares])) if shares else "",
        conversations=_by_conversation(stages),
    )


def _rows(stages: list[dict[str, Any]]) -> list[tuple[str, list[Dot]]]:
    """The stages of all conversations by what was compared, in the order they came."""
    rows: dict[str, list[Dot]] = defaultdict(list)
    for stage in stages:
        conversation, part = _split(stage["name"])
        title = f"{conversation}: worst {_figure(stage['worst'])}, tolerance {_figure(stage['tolerance'])}"
        worst, typical = (_ratio(stage[kind], stage["tolerance"]) for kind in ("worst", "typical"))
        rows[part].append(Dot(worst, typical, stage["passed"], title))
    return list(rows.items())


def _bar(stage: dict[str, Any]) -> Bar:
    label = stage["name"].removesuffix(_SHARE).removeprefix("their ")
    return Bar(f"{label} unchanged", stage["worst"], stage["tolerance"], stage["passed"])


def _by_conversation(stages: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for stage in stages:
        conversation, part = _split(stage["name"])
        group = "greedy answers" if stage["name"].endswith(_SHARE) else conversation
        found[group].append({**stage, "part": stage["name"] if group != conversation else part})
    return dict(found)


def _split(name: str) -> tuple[str, str]:
    """What was talked about, and what was compared."""
    conversation, _, part = name.partition(": ")
    return conversation, part or conversation


def _ratio(error: float, allowed: float) -> float:
    if allowed == 0:
        return 0.0 if error == 0 else math.inf
    return error / allowed


def _figure(number: float) -> str:
    """0 as 0, anything else with two digits."""
    return "0" if number == 0 else f"{number:.1e}"
