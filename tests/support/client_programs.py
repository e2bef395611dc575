"""The programs of tests/clients and the examples of frameworks in the documentation, each by its name."""

from __future__ import annotations

import re
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"```(py|js)\n(.*?)```", re.DOTALL)
HERE = _ROOT / "tests" / "clients"
PYTHON = _ROOT / ".clients" / "bin" / "python"
AGENTS_PYTHON = _ROOT / ".clients" / "agents" / "bin" / "python"
"""Of frameworks that need other versions of the SDKs than the others."""
PROXY = _ROOT / ".clients" / "proxy" / "bin" / "litellm"
JAVASCRIPT = HERE / "javascript"
DOCUMENTED = "http://127.0.0.1:5000"
"""Where all of them believe the service to be."""
PROGRAMS = {path.name: path.read_text("utf-8") for path in sorted((HERE / "python").glob("*.py"))}
AGENT_PROGRAMS = {path.name: path.read_text("utf-8") for path in sorted((HERE / "agent_frameworks").glob("*.py"))}
SCRIPTS = {path.name: path.read_text("utf-8") for path in sorted(JAVASCRIPT.glob("*.mjs"))}


def is_of_agents(code: str) -> bool:
    """Whether an example is one of those frameworks."""
    return "from agents import" in code


def examples(page: str) -> dict[str, str]:
    """The examples of a page, by their language and first line."""
    found = _BLOCK.findall((_ROOT / "docs" / page).read_text("utf-8"))
    named = {f"{language}: {code.splitlines()[0]}": code for language, code in found}
    assert len(named) == len(found), "two examples begin alike"
    return named
