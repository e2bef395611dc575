"""Opens the page in Chromium, and does what visitors do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 375, "height": 812}
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
# fmt: off
NO_FEATURES = (
    "WebUIOmniboxPopup", "WebUIOmniboxAimPopup", "WebUIOmniboxFullPopup",  # each window renders one, of nobody's use
    # Playwright's own, which the flag would take the place of
    "AvoidUnnecessaryBeforeUnloadCheckSync", "DestroyProfileOnBrowserClose", "HttpsUpgrades", "PaintHolding",
    "HttpsFirstBalancedModeAutoEnable", "LensOverlay", "MediaRouter", "ThirdPartyStoragePartitioning",
    "AvoidCorsURLLoaderRestartOnRedirect", "TcpPortRandomizationWin", "OptimizationHints",
    "NetworkTimeServiceQuerying", "AimEnabled", "PreconnectToSearch",
)
# fmt: on
FLAGS += [f"--disable-features={','.join(NO_FEATURES)}"]


def opened(
    browser: Any, url: str, viewport: dict[str, int] = WIDE, until: str = "body[data-met]", **options: Any
) -> Any:
    """The page at `url`, once it has what the selector `until` names; `problems` are what its console complains of."""
    page = browser.new_context(viewport=viewport, locale=options.pop("locale", "en-US"), **options).new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda said: page.problems.append(said.text) if said.type in ("error", "warning") else None)
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(url)
    page.locator(until).first.wait_for()
    return page


def ask(page: Any, question: str) -> None:
    page.fill("#question", question)
    page.press("#question", "Enter")


def attach(page: Any, *files: Path) -> None:
    page.set_input_files("#file", files)
    page.locator("#attached li").nth(len(files) - 1).wait_for()


def answer(page: Any, number: int) -> str:
    """The text of an answer that has ended."""
    article = page.locator("article.model").nth(number)
    article.locator(".stats").wait_for()
    page.locator("#stop").wait_for(state="hidden")
    return str(article.locator(".said").inner_text())


def problem(page: Any) -> str:
    page.locator("#turns .problem p").last.wait_for()
    page.locator("#stop").wait_for(state="hidden")
    return str(page.locator("#turns .problem p").last.inner_text())


def barriers(page: Any) -> str:
    """What keeps some people from using the page, as axe reports it; nothing, if nothing does."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    without_selectors = {"resultTypes": ["violations"], "selectors": False}  # which take a quarter of its time
    return axe.run(page).generate_report() if axe.run(page, options=without_selectors).violations_count else ""
