"""Builds of these tests are certified as always, and their pages show no plots but where a test looks at one."""

from __future__ import annotations

import pytest

PLOTS = ("error_plot", "share_plot")


@pytest.fixture(autouse=True)
def no_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing them takes half of the time of a small build."""
    if any(map(request.node.get_closest_marker, ("build", "parity"))) and request.path.stem != "test_certificate_page":
        for plot in PLOTS:
            monkeypatch.setattr(f"export.certificate.html.{plot}", lambda *_figures: "<svg/>")
