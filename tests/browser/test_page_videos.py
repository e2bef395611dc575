"""The page takes videos and shows the frames that the model sees of them, which outlive a reload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chat_page import PHONE, answer, ask, barriers, opened, problem
from video_files import video

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "square.mp4"
    path.write_bytes(video(frames=30, width=160, height=90))
    return path


def _attach(page: Any, *files: Path) -> None:
    page.set_input_files("#file", files)
    page.locator("#attached li").nth(len(files) - 1).wait_for()


def test_the_frames_that_are_seen_are_shown_and_kept(browser: Any, url: str, film: Path, photo: Path) -> None:
    page = opened(browser, url)
    _attach(page, film, photo)
    assert page.locator("#attached .film").inner_text() == "square.mp4"
    ask(page, "Say [[it moves]]")
    assert answer(page, 0) == "it moves"
    frames = page.locator("article.you .strip .frame")
    assert frames.count() == 18 and frames.nth(3).inner_text() == "0.5 s"
    assert page.locator("article.you > .thumbnails .thumbnail").count() == 1
    page.locator("#chats li").wait_for()
    page.reload()
    assert answer(page, 0) == "it moves" and frames.count() == 18
    ask(page, "Say [[still there]]")
    assert answer(page, 1) == "still there"
    assert page.problems == []


def test_a_frame_opens_large_with_its_time(browser: Any, url: str, film: Path) -> None:
    page = opened(browser, url)
    _attach(page, film)
    ask(page, "Say [[yes]]")
    answer(page, 0)
    page.locator(".strip .frame").nth(2).click()
    assert "0.4 s" in page.locator("#viewer p").inner_text()


def test_a_dropped_video_is_taken(browser: Any, url: str, film: Path) -> None:
    page = opened(browser, url)
    dropped = page.evaluate_handle(
        """bytes => {
            const dropped = new DataTransfer();
            dropped.items.add(new File([new Uint8Array(bytes)], "dropped.mp4", { type: "video/mp4" }));
            return dropped;
        }""",
        list(film.read_bytes()),
    )
    page.dispatch_event("body", "drop", {"dataTransfer": dropped})
    page.locator("#attached .film").wait_for()
    assert page.locator("#attached .film").inner_text() == "dropped.mp4"


def test_a_broken_video_goes_back_with_what_is_wrong(browser: Any, url: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\0\0\0\x18ftypisom" + bytes(400))
    page = opened(browser, url)
    _attach(page, broken)
    ask(page, "What is it?")
    assert "cannot be decoded" in problem(page) and page.locator("#attached .film").count() == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_shows_the_row_within_its_width(browser: Any, url: str, film: Path, theme: str) -> None:
    page = opened(browser, url, PHONE, color_scheme=theme)
    _attach(page, film)
    assert barriers(page) == ""
    ask(page, "Say [[yes]]")
    answer(page, 0)
    assert barriers(page) == ""
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert page.locator(".strip").evaluate("row => row.scrollWidth > row.clientWidth")
