"""The shape of the project: few modules a folder, one sentence a package, and the README's two commands.

What may import what is import-linter's to say (pyproject.toml).
"""

from __future__ import annotations

import ast
import re
from collections import Counter

import pytest
from rendered_docs import PACKAGES, ROOT

MODULES_A_LEVEL = 20


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_shows_at_most_20_modules_and_packages_on_one_level(package: str) -> None:
    folder = ROOT / package
    modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    packages = [path.parent for path in folder.glob("*/__init__.py")]
    assert len(modules) + len(packages) <= MODULES_A_LEVEL


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_in_one_sentence_what_it_is(package: str) -> None:
    """In the first line; reasons and figures may follow in paragraphs of their own."""
    text = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text("utf-8")))
    assert text
    sentence, _, more = text.partition("\n")
    assert not more or more.startswith("\n")
    assert sentence and re.fullmatch(r"[^\n]+\.", sentence) and not re.search(r"[.!?] ", sentence), sentence


def test_modules_lie_in_packages_only() -> None:
    """A folder of modules without `__init__.py` would escape every check of packages."""
    roots = {name.split("/")[0] for name in PACKAGES}
    folders = {str(path.parent.relative_to(ROOT)) for root in roots for path in (ROOT / root).rglob("*.py")}
    ours = {folder for folder in folders if "/." not in folder}  # bench/.cache holds builds
    assert ours - set(PACKAGES) <= {"bench/profiles"}  # locust's


def test_no_two_test_files_have_one_name() -> None:
    """pytest imports them by their names alone, so the second one would end every run."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_the_two_commands_of_the_readme_are_routines_of_make() -> None:
    first_block = re.search(r"```sh\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert first_block
    commands = re.findall(r"^make ([a-z-]+)", first_block[1], re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert len(commands) == 2
    assert all(re.search(rf"^{command}:.* ## ", makefile, re.MULTILINE) for command in commands)


def test_no_folder_of_tests_hides_a_package_that_others_look_for() -> None:
    """pytest puts the folders of tests on the path, and torch then takes a `triton` there for its compiler."""
    folders = {path.parent.name for path in (ROOT / "tests").rglob("*.py") if ".cache" not in path.parts}
    assert not folders & {"triton", "torch", "onnx", "onnxruntime", "transformers", "tensorrt", "flask"}
