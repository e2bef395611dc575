"""A certificate as a page: whole in itself, with every stage in it, and plain about what failed."""

from __future__ import annotations

import builtins
import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from shared_builds import build_of_demo, copied
from typer.testing import CliRunner

from export.certificate.html import page
from export.certificate.writer import write_certificate
from export.cli import app
from export.errors import Exit
from export.verify.comparison import Stage
from glmserve.build.certificate import Certificate
from glmserve.build.manifest import CERTIFICATE_FILE, CERTIFICATE_PAGE, Manifest

pytestmark = pytest.mark.slow  # it draws plots

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
QUIET = Console(quiet=True)
STAGES = [
    Stage("one image: vision", 2e-5, 1e-6, 1e-4),
    Stage("one image: tokens", 0, 0, 0),
    Stage("two <pictures>: vision", 3e-5, 1e-6, 1e-4),
    Stage("2 greedy answers: share changed", 0.0, 0.0, 0.1),
]


class Page(HTMLParser):
    """What a reader of a page sees, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words, self.open, self.links = "", [], []
        self.count: dict[str, int] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "line", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Manifest.describe(tmp_path, "recipe", "a <b> checkpoint", "int8", "cpu").write(tmp_path)
    return tmp_path


def certified(folder: Path, stages: list[Stage], valid_days: int | None = None) -> tuple[bool, Page]:
    passed = write_certificate(folder, Manifest.read(folder), stages, "transformers", QUIET, valid_days)
    return passed, Page((folder / CERTIFICATE_PAGE).read_text("utf-8"))


def test_a_page_loads_nothing_closes_every_element_and_escapes_what_it_shows(folder: Path) -> None:
    passed, found = certified(folder, STAGES)
    text = (folder / CERTIFICATE_PAGE).read_text("utf-8")
    assert passed and not found.open and not found.links
    assert not re.search(r"url\(|@import|<script", text)
    assert "a <b> checkpoint" in found.words and "two <pictures>" in found.words and "b" not in found.count
    assert "prefers-color-scheme: dark" in text and found.count["svg"] == 2
    plots = text[text.index("<svg") : text.rindex("</svg>")]
    assert "style=" not in plots and plots.count("prefers-color-scheme: dark") == 2


def test_every_stage_stands_in_the_table_and_in_the_plot(folder: Path) -> None:
    _, found = certified(folder, STAGES)
    assert found.count["tr"] == len(STAGES) + 3  # and a heading for each group
    assert found.count["title"] == 1 + 2 * 3 + 1  # the page's; worst and typical of each error; the share's bar
    for words in ("2.0e-05", "1.0e-04", "all within tolerance", "onnxruntime", "2 greedy answers unchanged"):
        assert words in found.words
    assert "never" in found.words


def test_what_failed_is_named_and_shown_open(folder: Path) -> None:
    worse = [*STAGES, Stage("thinking: vision", math.nan, 0.1, 1e-4), Stage("thinking: tokens", 3, 0, 0)]
    passed, found = certified(folder, worse)
    assert not passed
    assert "of which 2 exceeded their tolerance: thinking: vision; thinking: tokens" in found.words
    text = (folder / CERTIFICATE_PAGE).read_text("utf-8")
    assert text.count("<details open>") == 1 and len(re.findall(r'<use [^>]*fill="#c62828"', text)) == 2


def test_a_comparison_of_nothing_is_no_proof(folder: Path) -> None:
    assert not certified(folder, [])[0]


def test_a_certificate_may_expire(folder: Path) -> None:
    certified(folder, STAGES, valid_days=30)
    found = Certificate.demand(folder, Manifest.read(folder))
    assert found.expires is not None and (found.expires - found.made).days == 30


def test_ids_are_only_those_that_something_refers_to_so_plots_do_not_clash(folder: Path) -> None:
    certified(folder, STAGES)
    text = (folder / CERTIFICATE_PAGE).read_text("utf-8")
    assert set(re.findall(r'<path id="([^"]+)"', text)) == set(re.findall(r'xlink:href="#([^"]+)"', text))
    assert set(re.findall(r' id="([^"]+)"', text)) == set(re.findall(r'<path id="([^"]+)"', text))


def test_a_page_can_be_made_of_the_json_alone(folder: Path) -> None:
    certified(folder, STAGES)
    assert page(json.loads((folder / CERTIFICATE_FILE).read_text())) == (folder / CERTIFICATE_PAGE).read_text()


def test_a_certificate_that_would_outlast_the_calendar_is_refused_before_anything_is_compared(tmp_path: Path) -> None:
    arguments = ["verify", str(tmp_path), "--checkpoint", str(tmp_path), "--valid-days", "10000000"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and "--valid-days" in result.stderr


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name == "export.verify.against_transformers":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)


@pytest.mark.usefixtures("without_torch")
def test_without_torch_verify_takes_the_recorded_logits(tmp_path: Path) -> None:
    made = copied(build_of_demo(), tmp_path / "builds")
    (made / CERTIFICATE_FILE).unlink()
    named = ["verify", made.name, "--out", str(made.parent)]  # by its digest
    result = CliRunner().invoke(app, [*named, "--checkpoint", str(DEMO), "--valid-days", "7"])
    assert result.exit_code == 0 and "comparing with the recorded logits" in result.output
    assert Certificate.demand(made, Manifest.read(made)).against == "golden logits"


@pytest.mark.usefixtures("without_torch")
def test_verify_prints_a_line_a_stage_whatever_its_folder_is_called(tmp_path: Path) -> None:
    made = copied(build_of_demo(), tmp_path / "[/data] builds")
    result = CliRunner().invoke(app, ["verify", str(made), "--checkpoint", str(DEMO)])
    lines = result.stdout.splitlines()
    assert result.exit_code == 0 and lines[-1] == f"passed: {made / CERTIFICATE_FILE}"
    assert all(re.fullmatch(r"ok     .+ worst .+ median .+ allowed .+", line) for line in lines[1:-1])


@pytest.mark.usefixtures("without_torch")
def test_without_torch_and_recorded_logits_verify_says_what_is_missing(tmp_path: Path) -> None:
    made = copied(build_of_demo(), tmp_path / "builds")
    checkpoint = shutil.copytree(DEMO, tmp_path / "checkpoint", ignore=shutil.ignore_patterns("golden"))
    result = CliRunner().invoke(app, ["verify", str(made), "--checkpoint", str(checkpoint)])
    assert result.exit_code == Exit.MISSING_PACKAGE and "pip install -r requirements/test.txt" in result.stderr
