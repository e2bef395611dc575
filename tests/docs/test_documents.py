"""What the documents say of the code is what the code says of itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rendered_docs import BLOCKS, DOCUMENTS, OTHER_FOLDERS, PACKAGES, ROOT, rendered

LINKED = ("export.md", "api.md", "benchmarks.md", "deploy.md", "scaling.md")
SKIPPED = {".git", ".venv", ".ci", "builds", "keys"}


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


@pytest.mark.parametrize(
    "document",
    [
        *DOCUMENTS,
        *(ROOT / "docs" / name for name in ("export.md", "api.md", "benchmarks.md", "deploy.md", "scaling.md")),
    ],
    ids=lambda path: path.name,
)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text("utf-8")):
        assert (document.parent / target).exists(), target


def test_make_targets_in_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in set(re.findall(r"`make ([a-z-]+)", (ROOT / "README.md").read_text("utf-8"))):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_chinese_readme_has_the_sections_fields_and_examples_of_the_other() -> None:
    def outline(name: str) -> tuple[list[int], list[str], list[str]]:
        text = (ROOT / name).read_text("utf-8")
        headings = [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)]
        fields = [
            "".join(re.findall(r"`\w+`", cell))
            for cell in re.findall(r"^\| (`\w+`[^|]*) \|", text.partition("## Settings")[0], re.MULTILINE)
        ]
        return headings, fields, re.findall(r"^```(\w+)$", text, re.MULTILINE)

    english, chinese = (outline(name) for name in ("README.md", "README.zh-CN.md"))
    assert english == chinese
