"""The web page in a real browser: ask, watch, ask on, in two languages, with the keyboard, on a phone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from live_gateway import live_gateway
from PIL import Image, ImageDraw
from stand_in_build import write_processor_and_canary

from gateway.limits.api_keys import create_key
from glmserve.build.manifest import CHECKPOINT_FOLDER, Manifest

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
WIDE, PHONE = {"width": 1200, "height": 800}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    write_processor_and_canary(folder, "What is it?", None)
    Manifest.describe(folder, "recipe", "demo", "fp32", "cpu").write(folder)
    return folder


@pytest.fixture(scope="module")
def url(build: Path) -> Generator[str]:
    with live_gateway(build) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Generator[Any]:
    with playwright.sync_playwright() as runner:
        chromium = runner.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = Image.new("RGB", (320, 240), "white")
    ImageDraw.Draw(image).ellipse((90, 50, 230, 190), fill="red")
    path = tmp_path_factory.mktemp("photo") / "circle.png"
    image.save(path)
    return path


def opened(browser: Any, url: str, viewport: dict[str, int] = WIDE, **options: Any) -> Any:
    page = browser.new_context(viewport=viewport, locale=options.pop("locale", "en-US"), **options).new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda said: page.problems.append(said.text) if said.type == "error" else None)
    page.goto(url)
    page.locator("#model:not(:empty)").wait_for()
    return page


def ask(page: Any, question: str) -> None:
    page.fill("#question", question)
    page.press("#question", "Enter")


def answer(page: Any, number: int) -> str:
    article = page.locator("article.model").nth(number)
    article.locator(".stats").wait_for()
    page.locator("#stop").wait_for(state="hidden")
    return str(article.locator(".said").inner_text())


def test_an_image_is_chosen_asked_about_and_asked_about_again(browser: Any, url: str, photo: Path) -> None:
    page = opened(browser, url)
    page.set_input_files("#file", photo)
    page.locator("#preview").wait_for()
    ask(page, "Say [[A red circle.]]")
    assert answer(page, 0) == "A red circle."
    assert "of the picture" in page.locator(".stats").first.inner_text()
    ask(page, "And [[white around it]]")
    assert answer(page, 1) == "white around it"
    assert page.locator("article").count() == 4 and page.problems == []


def test_an_image_can_be_dropped_and_pasted(browser: Any, url: str) -> None:
    page = opened(browser, url)
    for kind, holder in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        page.evaluate(
            """async ([kind, holder]) => {
                const canvas = document.createElement("canvas");
                const blob = await new Promise((done) => canvas.toBlob(done));
                const data = new DataTransfer();
                data.items.add(new File([blob], "a.png", { type: "image/png" }));
                const event = new Event(kind, { bubbles: true, cancelable: true });
                Object.defineProperty(event, holder, { value: data });
                document.getElementById("preview").hidden = true;
                document.dispatchEvent(event);
            }""",
            [kind, holder],
        )
        page.locator("#preview").wait_for()
    assert page.problems == []


def test_thoughts_stand_apart_and_markup_in_an_answer_stays_text(browser: Any, url: str) -> None:
    page = opened(browser, url)
    page.check("#thinking")
    ask(page, "Say [[<think>round</think><b>bold</b> <img src=x onerror=alert(1)>]]")
    assert answer(page, 0) == "<b>bold</b> <img src=x onerror=alert(1)>"
    assert page.locator(".thoughts summary").inner_text() == "Thoughts"
    assert page.problems == []


def test_an_answer_can_be_stopped(browser: Any, url: str) -> None:
    page = opened(browser, url)
    ask(page, f"Say [[{'word ' * 400}]]")
    page.locator("#stop").click()
    page.get_by_text("Stopped.").wait_for()
    assert page.locator("#send").is_enabled()


def problem(page: Any) -> str:
    page.locator(".problem").last.wait_for()
    page.locator("#stop").wait_for(state="hidden")
    return str(page.locator(".problem").last.inner_text())


def test_a_refusal_is_shown_in_words_and_the_question_is_kept(browser: Any, url: str, tmp_path: Path) -> None:
    drawing = tmp_path / "a.svg"  # a browser shows it, the service does not read it
    drawing.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="90" height="90"></svg>', "utf-8")
    page = opened(browser, url)
    page.set_input_files("#file", drawing)
    page.locator("#preview").wait_for()
    ask(page, "What is it?")
    assert "cannot be decoded" in problem(page)
    assert page.input_value("#question") == "What is it?" and page.locator("article").count() == 0
    page.click("#remove")
    ask(page, "Say [[better]]")
    assert answer(page, 0) == "better"


def test_a_broken_image_is_complained_of_at_once_and_takes_the_last_ones_place(
    browser: Any, url: str, photo: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG no picture")
    page = opened(browser, url)
    page.set_input_files("#file", photo)
    page.get_by_text("320 × 240").wait_for()
    page.set_input_files("#file", broken)
    assert "broken" in problem(page)
    assert page.locator("#preview").is_hidden() and page.locator("#facts").text_content() == ""
    page.set_input_files("#file", photo)
    page.get_by_text("320 × 240").wait_for()
    assert page.locator(".problem").count() == 0


def test_an_image_can_be_removed_again(browser: Any, url: str, photo: Path) -> None:
    page = opened(browser, url)
    page.set_input_files("#file", photo)
    page.click("#remove")
    assert page.locator("#preview").is_hidden() and page.locator("#invite").is_visible()
    ask(page, "Say [[no picture]]")
    assert answer(page, 0) == "no picture" and "(0 of the picture)" in page.locator(".stats").inner_text()
    page.set_input_files("#file", photo)  # the same once more
    page.locator("#preview").wait_for()


@pytest.mark.parametrize(("said", "told"), [("<think>hm", "thought, but gave no answer"), ("", "said nothing")])
def test_an_answer_without_words_says_so(browser: Any, url: str, said: str, told: str) -> None:
    page = opened(browser, url)
    page.check("#thinking")
    ask(page, f"Say [[{said}]]")
    assert told in answer(page, 0)
    ask(page, "Say [[more]]")
    assert answer(page, 1) == "more"


@pytest.mark.parametrize(("status", "told"), [(502, "could not answer just now (502)"), (413, "too large to be sent")])
def test_a_page_of_html_from_a_proxy_is_told_in_words(browser: Any, url: str, status: int, told: str) -> None:
    page = opened(browser, url)
    page.route("**/v1/chat/completions", lambda route: route.fulfill(status=status, body="<html>nginx</html>"))
    ask(page, "What is it?")
    assert told in problem(page) and page.input_value("#question") == "What is it?"


def test_the_demo_says_that_it_is_one_and_offers_an_image_with_questions(browser: Any, url: str) -> None:
    page = opened(browser, url)
    page.locator("#badge").wait_for()
    assert "not GLM-4.6V-Flash" in page.locator("#demo").inner_text()
    page.click("#sample")
    page.locator("#preview").wait_for()
    page.locator("#samples button").first.click()
    assert answer(page, 0) == "Hello." and "(64 of the picture)" in page.locator(".stats").inner_text()
    page.click("#language")
    assert page.locator("#samples button").first.inner_text() == "图中有几个物体？"
    page.click("#remove")
    assert page.locator("#samples").is_hidden() and page.problems == []


def test_another_model_is_no_demo(browser: Any, build: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(build, tmp_path / "other"))
    config = other / CHECKPOINT_FOLDER / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text("utf-8")), "is_demo": False}), "utf-8")
    with live_gateway(other) as url:
        page = opened(browser, url)
        assert page.locator("#badge").is_hidden() and page.locator("#demo").is_hidden()


def test_it_leads_to_the_documentation_and_back(browser: Any, url: str) -> None:
    page = opened(browser, url)
    page.click("#docs")
    page.locator("h2").first.wait_for()
    page.get_by_text("Ask a picture").click()
    page.locator("#model:not(:empty)").wait_for()


def test_it_speaks_chinese(browser: Any, url: str) -> None:
    page = opened(browser, url, locale="zh-CN")
    assert page.locator("h1").inner_text() == "看图问答" and page.evaluate("document.documentElement.lang") == "zh-CN"
    page.click("#language")
    assert page.locator("#send").inner_text() == "Ask"
    page.reload()
    assert page.locator("h1").inner_text() == "Ask a picture"


def test_both_languages_have_every_word(browser: Any, url: str) -> None:
    page = opened(browser, url)
    assert page.evaluate("Object.keys(WORDS.en).sort().join() === Object.keys(WORDS.zh).sort().join()")


def test_it_can_be_used_with_the_keyboard_alone(browser: Any, url: str, photo: Path) -> None:
    page = opened(browser, url)
    # Listening begins long before the key is pressed: a browser told to hand the chooser over in the same breath as
    # the key may open its own first, and then no chooser ever comes.
    page.on("filechooser", lambda chooser: chooser.set_files(photo))
    order = []
    for _ in range(7):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.id"))
    assert order == ["docs", "language", "theme", "sample", "drop", "talk", "question"]
    page.keyboard.type("Say [[fine]]")
    page.keyboard.press("Enter")
    assert answer(page, 0) == "fine"
    page.locator("#question:focus").wait_for()
    page.focus("#drop")
    page.keyboard.press("Enter")
    page.locator("#preview").wait_for()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_text_is_readable_and_nothing_overflows(browser: Any, url: str, photo: Path, theme: str, viewport: Any) -> None:
    page = opened(browser, url, viewport, color_scheme=theme)
    page.set_input_files("#file", photo)
    ask(page, "Say [[" + "long " * 60 + "x" * 200 + "]]")
    answer(page, 0)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.getElementById('send').getBoundingClientRect().bottom <= innerHeight")
    contrast = page.evaluate(
        """() => {
            const light = (text) => text.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
                .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
                .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
            const back = (node) => {
                const colour = getComputedStyle(node).backgroundColor;
                return colour === "rgba(0, 0, 0, 0)" ? back(node.parentElement) : colour;
            };
            return [...document.querySelectorAll("h1, h2, p, button, span, label, strong")]
                .filter((node) => node.offsetParent && node.textContent.trim())
                .map((node) => {
                    const [a, b] = [light(getComputedStyle(node).color), light(back(node))].sort((x, y) => y - x);
                    return (a + 0.05) / (b + 0.05);
                });
        }"""
    )
    assert min(contrast) >= 4.5


def test_a_key_is_asked_for_where_one_is_needed(browser: Any, build: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    secret = create_key(keys, "visitor")
    with live_gateway(build, KEYS_FILE=str(keys)) as url:
        page = browser.new_page()
        page.goto(url)
        page.locator("#key-row").wait_for()
        ask(page, "Say [[come in]]")
        assert "API key” under the picture" in problem(page)
        page.locator("#key:focus").wait_for()
        page.keyboard.type("glm-wrong")
        page.press("#question", "Enter")
        page.get_by_text("This API key is not valid").wait_for()
        page.fill("#key", secret)
        page.press("#key", "Enter")
        assert answer(page, 0) == "come in"
        page.locator("#badge").wait_for()  # which model it is can be asked from now on
        page.reload()
        page.locator("#badge").wait_for()


def test_the_documentation_shows_every_address(browser: Any, url: str) -> None:
    page = browser.new_page()
    page.goto(f"{url}/docs")
    page.locator("h2").first.wait_for()
    shown = page.locator("#document").inner_text()
    assert all(path in shown for path in ("/v1/chat/vision", "/v1/chat/completions", "/metrics", "repetition_penalty"))
    assert all(head.inner_text() for head in page.locator("th").all())
    assert page.get_by_text("How freely tokens are drawn").count() == 2, "each body is shown once"
    assert page.locator("tr", has_text="max_tokens").first.inner_text().split("\t")[1:3] == ["integer", "512"]
    assert page.locator("pre").count() == 4, "a request and its answer on either chat route"
    for link in page.locator("#document a").all():
        assert page.locator(str(link.get_attribute("href"))).count() == 1


def test_the_documentation_can_be_read_on_a_phone(browser: Any, url: str) -> None:
    page = browser.new_context(viewport=PHONE).new_page()
    page.goto(f"{url}/docs")
    page.locator("h2").first.wait_for()
    assert page.evaluate("document.getElementById('document').scrollWidth <= innerWidth")
    narrow = "[...document.querySelectorAll('td')].filter((cell) => cell.offsetParent && cell.clientWidth < 250).length"
    assert page.evaluate(narrow) == 0, "no cell is so narrow that its words break"
