"""A stand-in build, the echoing gateway, Chromium, and an image: what every test of the page starts from."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from chat_page import FLAGS
from live_gateway import live_gateway
from PIL import Image, ImageDraw
from stand_in_build import write_stand_in

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="session")
def page_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    write_stand_in(folder, "What is it?", None)
    return folder


@pytest.fixture(scope="session")
def url(page_build: Path) -> Generator[str]:
    with live_gateway(page_build) as url:
        yield url


@pytest.fixture(scope="session")
def browser() -> Generator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as runner:
        chromium = runner.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(autouse=True)
def pages_are_closed(browser: Any) -> Generator[None]:
    """A page that is left open goes on computing beside the tests after it."""
    yield
    for context in browser.contexts:
        context.close()


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = Image.new("RGB", (320, 240), "white")
    ImageDraw.Draw(image).ellipse((90, 50, 230, 190), fill="red")
    path = tmp_path_factory.mktemp("photo") / "circle.png"
    image.save(path)
    return path
