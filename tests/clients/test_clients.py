"""Every framework gets structured output, tools and streams in its default way, from the real service."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import Run
from rendered_docs import ROOT

pytestmark = pytest.mark.triton
HERE = Path(__file__).parent
PROGRAMS = sorted([*(HERE / "python").glob("*.py"), *(HERE / "javascript").glob("*.mjs")])
_BLOCK = re.compile(r"```(py|js)\n(.*?)```", re.DOTALL)
EXAMPLES = _BLOCK.findall((ROOT / "docs" / "api.md").read_text("utf-8"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_a_framework_works_in_its_default_way(program: Path, run: Run) -> None:
    assert run("py" if program.suffix == ".py" else "js", program.read_text("utf-8")).endswith("done\n")


@pytest.mark.parametrize(("language", "code"), EXAMPLES, ids=[code.split("\n")[0][:60] for _, code in EXAMPLES])
def test_an_example_of_the_documentation_runs(language: str, code: str, run: Run) -> None:
    assert run(language, code).strip()


def test_the_chinese_page_has_the_same_examples() -> None:
    assert _BLOCK.findall((ROOT / "docs" / "guide.zh-CN.md").read_text("utf-8")) == EXAMPLES
