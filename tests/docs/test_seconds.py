"""Every number of seconds in the source is listed in docs/reliability.md, with why it may stay."""

from __future__ import annotations

import re

import pytest
from constants_of_time import ROOT, constants

PAGE = ROOT / "docs" / "reliability.md"


def listed() -> dict[str, str]:
    section = PAGE.read_text("utf-8").partition("\n## Every number of seconds\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"`([\w/]+\.py:[^`]+?) = ([\d.]+)`", section))


@pytest.mark.slow
def test_no_wait_is_hidden_in_the_code() -> None:
    """A new one is first asked whether the request's deadline, a setting or a measured pace should stand for it."""
    found, known = constants(), listed()
    new = {name: number for name, number in found.items() if known.get(name) != number}
    remedy = f"list it under 'Every number of seconds' in docs/{PAGE.name}, in the row that says why it may stay"
    assert not new, f"{', '.join(f'`{name} = {number}`' for name, number in new.items())}: {remedy}"


@pytest.mark.slow
def test_the_list_holds_nothing_that_is_gone() -> None:
    assert listed().keys() <= constants().keys()
