"""Every framework gets structured output, tools and streams in its default way, from the real service."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from client_programs import AGENT_PROGRAMS, PROGRAMS, SCRIPTS, examples

pytestmark = [pytest.mark.triton, pytest.mark.timeout(600)]
EXAMPLES = examples("api.md")
OF_PYTHON = [name for name in EXAMPLES if name.startswith("py: ")]
OF_JAVASCRIPT = [name for name in EXAMPLES if name.startswith("js: ")]


@pytest.mark.parametrize("name", [*PROGRAMS, *AGENT_PROGRAMS])
def test_a_framework_works_in_its_default_way(name: str, printed_by_python: dict[str, dict[str, str]]) -> None:
    assert not printed_by_python[name]["failure"], printed_by_python[name]["failure"]
    assert printed_by_python[name]["printed"].endswith("done\n")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_framework_in_javascript_does_so_too(name: str, printed_by_javascript: Callable[[str], str]) -> None:
    assert printed_by_javascript(SCRIPTS[name]).endswith("done\n")


@pytest.mark.parametrize("name", OF_PYTHON)
def test_an_example_of_the_documentation_runs(name: str, printed_by_python: dict[str, dict[str, str]]) -> None:
    assert not printed_by_python[name]["failure"], printed_by_python[name]["failure"]
    assert printed_by_python[name]["printed"].strip()


@pytest.mark.parametrize("name", OF_JAVASCRIPT)
def test_an_example_in_javascript_does_so_too(name: str, printed_by_javascript: Callable[[str], str]) -> None:
    assert printed_by_javascript(EXAMPLES[name]).strip()


def test_the_chinese_page_has_the_same_examples() -> None:
    assert examples("guide.zh-CN.md") == EXAMPLES
