"""The examples of docs/api.md."""

from __future__ import annotations

import re
from pathlib import Path

API = Path(__file__).resolve().parents[2] / "docs" / "api.md"
_EXAMPLE = re.compile(r"```(sh|python)\n(.*?)```", re.DOTALL)
_OF_THE_ENGINE = ("## Text in a given shape\n", "## Tools\n")


def examples(of_the_engine: bool = False) -> list[tuple[str, str]]:
    """Language and code of every example, or of those only whose answers an engine has to hold to a shape."""
    text = API.read_text("utf-8")
    if not of_the_engine:
        return _EXAMPLE.findall(text)
    sections = [text.partition(heading)[2].partition("\n## ")[0] for heading in _OF_THE_ENGINE]
    return [example for section in sections for example in _EXAMPLE.findall(section)]
