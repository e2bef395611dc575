"""The benchmarks page shows what the committed results say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import report, results
from bench.results import Spread


def test_the_page_shows_the_committed_results() -> None:
    text = report.DOCUMENT.read_text("utf-8")
    assert text == report.rendered(text), "run `.venv/bin/python -m bench report`"


def test_the_chart_shows_the_committed_results() -> None:
    drawn = report.chart()
    assert drawn is None or report.CHART.read_text("utf-8") == drawn, "run `.venv/bin/python -m bench report`"


def test_a_row_keeps_its_spread_and_where_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    results.write("speed", [Spread.of([3.0, 1.0, 2.0]).fields("ratio")], "a command")
    (row,) = json.loads((tmp_path / "speed.json").read_text("utf-8"))
    assert (row["ratio"], row["ratio_spread"], row["run"]["command"]) == (2.0, [1.0, 3.0], "a command")


def test_what_was_never_measured_is_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    assert report.rendered(report.DOCUMENT.read_text("utf-8")).count("Not measured yet.") == len(report.BLOCKS)
