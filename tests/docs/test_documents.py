"""What the documents say of the code is what the code says of itself."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from rendered_docs import BLOCKS, DOCUMENTS, OTHER_FOLDERS, PACKAGES, ROOT, rendered

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
SKIPPED = {".git", ".venv", ".ci", "builds", "keys"}
MOST_README_LINES = 115
MADE_LATER = {"deploy/prometheus/alertmanagers.yml", "bench/results/gpu_check.json"}
"""Files that a reader is told to make, or that a command writes."""


def text_of(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_generated_blocks_are_fresh(document: Path) -> None:
    text = document.read_text("utf-8")
    assert text == rendered(text), "run `make docs`"


def test_every_generated_block_is_shown_somewhere() -> None:
    shown = "".join(document.read_text("utf-8") for document in DOCUMENTS)
    assert all(f"<!-- {name}: generated" in shown for name in BLOCKS)


def test_the_tree_names_every_folder_and_nothing_else() -> None:
    named = {name.split("/")[0] for name in (*PACKAGES, *OTHER_FOLDERS)}
    on_disk = {
        path.name
        for path in ROOT.iterdir()
        if path.is_dir() and path.name not in SKIPPED and not re.match(r"\.|__pycache__|.*\.egg-info", path.name)
    }
    assert named == on_disk


def test_no_file_outgrows_400_lines() -> None:
    long = {
        str(path.relative_to(ROOT))
        for package in (*PACKAGES, "tests", "model_repository")
        for path in (ROOT / package).rglob("*.py")
        if len(path.read_text("utf-8").splitlines()) > 400
    }
    assert not long


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_a_readme_is_read_in_five_minutes(name: str) -> None:
    assert len(text_of(name).splitlines()) <= MOST_README_LINES


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text("utf-8")):
        linked = page.parent / target if target else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked.read_text("utf-8")), f"{target}#{anchor}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda path: path.name)
def test_files_that_are_named_exist(page: Path) -> None:
    """Every path in backticks that begins with one of our folders; the changelog may name what is gone."""
    ours = {name.split("/")[0] for name in (*PACKAGES, *OTHER_FOLDERS)}
    for name in re.findall(r"`([\w.-]+/[\w./-]*\w/?)`", page.read_text("utf-8")):
        if name.split("/")[0] in ours and name not in MADE_LATER:
            assert (ROOT / name).exists(), name


def test_ten_questions_of_a_maintainer_are_each_answered_by_a_file() -> None:
    rows = re.findall(r"^\| (Where .*\?) \| `([\w/.]+)`: (.*) \|$", text_of("CONTRIBUTING.md"), re.MULTILINE)
    assert len(rows) == 10
    for question, file, answer in rows:
        names = re.findall(r"`(\w+)`", answer)
        assert names and all(re.search(rf"\b(def|class) {name}\b", text_of(file)) for name in names), question


def test_make_targets_in_the_readme_exist() -> None:
    makefile = text_of("Makefile")
    for target in set(re.findall(r"`?make ([a-z-]+)", text_of("README.md"))):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_chinese_readme_has_the_sections_tables_pictures_and_examples_of_the_other() -> None:
    def outline(name: str) -> dict[str, object]:
        text = text_of(name)
        return {
            "headings": [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)],
            "cells": [row.count("|") for row in re.findall(r"^\|.*\|$", text, re.MULTILINE)],
            "pictures": re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text),
            "examples": re.findall(r"^```(\w+)$", text, re.MULTILINE),
            "commands": [command.strip() for command in re.findall(r"^(make [^#\n]+)", text, re.MULTILINE)],
            "pages": set(re.findall(r"\]\((docs/[\w.-]+)\)", text)) - {"docs/guide.zh-CN.md"},
        }

    assert outline("README.md") == outline("README.zh-CN.md")


def test_the_chinese_guide_has_the_fields_and_errors_of_the_api() -> None:
    def rows(name: str) -> tuple[list[str], list[str]]:
        text = text_of(name)
        fields = re.findall(r"^\| (`\w+`[^|]*) \|", text.partition("| `image` |")[2].partition("\n\n")[0], re.MULTILINE)
        statuses = re.findall(r"^\| (\d{3}[^|]*) \|", text, re.MULTILINE)
        return ["".join(re.findall(r"`\w+`", cell)) for cell in fields], [
            "".join(re.findall(r"\d+", cell)) for cell in statuses
        ]

    english, chinese = rows("docs/api.md"), rows("docs/guide.zh-CN.md")
    assert english == chinese and len(english[0]) >= 13 and len(english[1]) >= 7


def test_the_changelog_has_an_entry_for_this_version() -> None:
    version = tomllib.loads(text_of("pyproject.toml"))["project"]["version"]
    assert re.search(rf"^## \[?{re.escape(version)}\b", text_of("CHANGELOG.md"), re.MULTILINE)


def anchors(text: str) -> set[str]:
    """What GitHub calls each heading."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
