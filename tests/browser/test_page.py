"""The chat in a real browser: ask, watch, ask on, with images, with the keyboard, on a phone, in two languages."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from chat_page import PHONE, WIDE, answer, ask, attach, barriers, opened, problem
from live_gateway import live_gateway

import gateway.errors  # noqa: F401 - whose errors are of the tree, too
from gateway.limits.api_keys import create_key
from glmserve.build.manifest import CHECKPOINT_FOLDER
from glmserve.errors import GlmServeError

pytestmark = pytest.mark.browser


def test_an_image_is_chosen_asked_about_and_asked_about_again(browser: Any, url: str, photo: Path) -> None:
    page = opened(browser, url)
    attach(page, photo)
    ask(page, "Say [[A red circle.]]")
    assert answer(page, 0) == "A red circle."
    assert "of images" in page.locator(".stats").first.inner_text()
    assert page.locator("article.you .thumbnail").count() == 1 and page.locator("#attached li").count() == 0
    ask(page, "And [[white around it]]")
    assert answer(page, 1) == "white around it"
    assert page.locator("article").count() == 4 and page.problems == []


def test_several_images_come_at_any_turn_and_can_be_taken_away(browser: Any, url: str, photo: Path) -> None:
    page = opened(browser, url)
    attach(page, photo, photo)
    page.get_by_label("Remove Image 1").click()
    assert page.locator("#attached li").count() == 1
    ask(page, "Say [[one]]")
    one = re.search(r"\((\d+) of images", answer(page, 0) and page.locator(".stats").first.inner_text())
    attach(page, photo, photo)
    ask(page, "Say [[three]]")
    three = re.search(r"\((\d+) of images", answer(page, 1) and page.locator(".stats").last.inner_text())
    assert one and three and int(three[1]) == 3 * int(one[1])
    page.get_by_label("Enlarge Image 3").click()
    assert page.locator("#viewer figure img").is_visible() and "320 × 240" in page.locator("#viewer").inner_text()
    page.keyboard.press("Escape")
    assert page.locator("#viewer").is_hidden() and page.problems == []


def test_an_image_can_be_dropped_and_pasted(browser: Any, url: str) -> None:
    page = opened(browser, url)
    for number, (kind, holder) in enumerate((("drop", "dataTransfer"), ("paste", "clipboardData"))):
        page.evaluate(
            """async ([kind, holder]) => {
                const canvas = document.createElement("canvas");
                const blob = await new Promise((done) => canvas.toBlob(done));
                const data = new DataTransfer();
                data.items.add(new File([blob], "a.png", { type: "image/png" }));
                const event = new Event(kind, { bubbles: true, cancelable: true });
                Object.defineProperty(event, holder, { value: data });
                document.dispatchEvent(event);
            }""",
            [kind, holder],
        )
        page.locator("#attached li").nth(number).wait_for()
    assert page.problems == []


def test_thoughts_stand_apart_and_markup_in_an_answer_stays_text(browser: Any, url: str) -> None:
    page = opened(browser, url)
    page.check("#thinking")
    ask(page, "Say [[<think>round</think><b>bold</b> <img src=x onerror=alert(1)>]]")
    assert answer(page, 0) == "<b>bold</b> <img src=x onerror=alert(1)>"
    assert page.locator(".thoughts summary").inner_text() == "Thoughts"
    assert page.problems == []


def test_markdown_becomes_lists_tables_and_code_and_nothing_that_acts(browser: Any, url: str) -> None:
    page = opened(browser, url)
    said = (
        "**bold**\n\n- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\nreturn 1  # <script>\n```\n\n"
        "[link](https://example.com) [bad](javascript:alert(1)) ![far](https://example.com/x.png)\n\n"
        "<iframe src=x></iframe>"
    )
    ask(page, f"Say [[{said}]]")
    answer(page, 0)
    text = page.locator(".said").last
    assert text.locator("strong").inner_text() == "bold" and text.locator("li").count() == 2
    assert text.locator("td").all_inner_texts() == ["1", "2"] and text.locator("pre .hljs-keyword").count() == 1
    assert text.locator("a").first.get_attribute("rel") == "noopener noreferrer nofollow"
    assert text.locator("a[href^=javascript], img, script, iframe").count() == 0
    assert page.problems == []


def test_headings_of_an_answer_are_larger_the_higher_they_stand_and_are_not_cut(browser: Any, url: str) -> None:
    page = opened(browser, url, PHONE)
    ask(page, f"Say [[# {'one ' * 20}\n\n## two\n\n### three\n\ntext]]")
    answer(page, 0)
    sizes = page.eval_on_selector_all(
        ".said :is(h1, h2, h3, p)", "nodes => nodes.map((node) => parseFloat(getComputedStyle(node).fontSize))"
    )
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 4
    heading = page.locator(".said h1").evaluate("(node) => [node.scrollWidth <= node.clientWidth, node.clientHeight]")
    assert heading[0] and heading[1] > 40, "it takes several lines"


def test_a_wide_table_is_scrolled_on_a_phone_and_its_words_stay_whole(browser: Any, url: str) -> None:
    page = opened(browser, url, PHONE)
    row = "| position | remark | colour | another | number | distance |"
    ask(page, f"Say [[{row}\n{'|---' * 6}|\n{row}]]")
    answer(page, 0)
    assert max(page.eval_on_selector_all(".said td", "cells => cells.map((cell) => cell.clientHeight)")) < 40
    assert page.locator(".said .wide").evaluate("(frame) => frame.scrollWidth > frame.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_an_answer_can_be_stopped_with_the_button_and_with_escape(browser: Any, url: str) -> None:
    page = opened(browser, url)
    for number in range(2):
        ask(page, f"Say [[{'word ' * 400}]]")
        if number:
            page.keyboard.press("Escape")
        else:
            page.locator("#stop").click()
        page.get_by_text("Stopped.").nth(number).wait_for()
        assert page.locator("#send").is_visible()


def test_a_question_can_be_changed_and_an_answer_given_again(browser: Any, url: str, photo: Path) -> None:
    page = opened(browser, url)
    attach(page, photo)
    ask(page, "Say [[first]]")
    answer(page, 0)
    ask(page, "Say [[second]]")
    answer(page, 1)
    page.get_by_label("Answer again").last.click()
    assert answer(page, 1) == "second" and page.locator("article").count() == 4
    page.get_by_label("Edit").first.click()
    page.locator(".editor textarea").fill("Say [[changed]]")
    page.get_by_text("Ask again", exact=True).click()
    assert answer(page, 0) == "changed" and page.locator("article").count() == 2
    assert page.locator("article.you .thumbnail").count() == 1, "its image stays with it"


def test_a_refusal_is_shown_in_words_and_the_question_is_kept(browser: Any, url: str, tmp_path: Path) -> None:
    drawing = tmp_path / "a.svg"  # a browser shows it, the service does not read it
    drawing.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="90" height="90"></svg>', "utf-8")
    page = opened(browser, url)
    attach(page, drawing)
    ask(page, "What is it?")
    assert "cannot be decoded" in problem(page)
    assert page.input_value("#question") == "What is it?" and page.locator("article").count() == 0
    page.get_by_label("Remove Image 1").click()
    ask(page, "Say [[better]]")
    assert answer(page, 0) == "better"


def test_a_broken_file_is_complained_of_at_once_and_another_can_be_chosen(
    browser: Any, url: str, photo: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG no picture")
    page = opened(browser, url)
    page.set_input_files("#file", broken)
    assert "broken.png is broken" in problem(page) and page.locator("#attached").is_hidden()
    attach(page, photo)
    ask(page, "Say [[good]]")
    assert answer(page, 0) == "good" and page.locator("#turns .problem").count() == 0


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
    ask(page, "Say [[at last]]")
    assert told in problem(page) and page.input_value("#question") == "Say [[at last]]"
    page.unroute("**/v1/chat/completions")
    page.get_by_text("Try again").click()
    assert answer(page, 0) == "at last"


def test_a_busy_service_says_when_to_ask_again(browser: Any, url: str) -> None:
    page = opened(browser, url)
    busy = {"error": {"message": "The service is full."}}
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(status=503, headers={"Retry-After": "7"}, body=json.dumps(busy)),
    )
    ask(page, "What is it?")
    assert problem(page) == "The service is full. Ask again in 7 s."


def test_boxes_are_drawn_on_their_image_and_can_be_copied(browser: Any, url: str, photo: Path) -> None:
    page = opened(browser, url, permissions=["clipboard-read", "clipboard-write"])
    attach(page, photo)
    ask(page, "Say [[The circle <|begin_of_box|>[281,208,719,792]<|end_of_box|>]]")
    answer(page, 0)
    drawn = page.locator("article.model svg.boxes")
    assert drawn.get_attribute("viewBox") == "0 0 320 240" and drawn.locator("text").text_content() == "The circle"
    rectangle = drawn.locator("rect")
    assert [rectangle.get_attribute(name) for name in ("x", "y", "width", "height")] == ["90", "50", "140", "140"]
    page.get_by_label("Copy the boxes as JSON").click()
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert copied == [{"image": 0, "box": [90, 50, 230, 190], "label": "The circle"}]
    assert page.problems == []


def test_the_demo_says_that_it_is_one_and_offers_an_image_with_questions(browser: Any, url: str) -> None:
    page = opened(browser, url)
    page.locator("#badge").wait_for()
    assert "not GLM-4.6V-Flash" in page.locator("#demo").inner_text()
    page.click("#sample")
    page.locator("#attached li").wait_for()
    page.locator("#samples button").first.click()
    assert answer(page, 0) == "Hello." and "(64 of images)" in page.locator(".stats").inner_text()
    page.locator("#samples button").last.click()
    assert answer(page, 1) == "Hello."
    page.click("#language")
    assert page.locator("#samples button").first.inner_text() == "图中有几个物体？"
    page.click("#new")
    assert page.locator("#samples").is_hidden() and page.problems == []


def test_another_model_is_no_demo(browser: Any, page_build: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(page_build, tmp_path / "other"))
    config = other / CHECKPOINT_FOLDER / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text("utf-8")), "is_demo": False}), "utf-8")
    with live_gateway(other) as url:
        page = opened(browser, url)
        assert page.locator("#badge").is_hidden() and page.locator("#demo").is_hidden()
        assert page.locator("#sample").is_hidden()


def test_it_leads_to_the_documentation_and_back(browser: Any, url: str) -> None:
    page = opened(browser, url)
    page.click("#docs")
    page.locator("h2").first.wait_for()
    page.get_by_text("Chat", exact=True).click()
    page.locator("body[data-met]").wait_for()


def test_it_speaks_chinese(browser: Any, url: str) -> None:
    page = opened(browser, url, locale="zh-CN")
    assert page.locator("#welcome h2").inner_text() == "看图提问"
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    page.click("#language")
    assert page.locator("#new").inner_text().strip() == "New chat"
    page.reload()
    assert page.locator("#welcome h2").inner_text() == "Ask about your images"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("overloaded", "服务繁忙，请稍后重试。"),
        ("bad_image", "这张图片无法使用。（Why.）"),
        ("toString", "Why."),
        ("new", "Why."),
    ],
)
def test_errors_that_are_known_are_told_in_chinese(browser: Any, url: str, code: str, told: str) -> None:
    page = opened(browser, url, locale="zh-CN")
    refusal = json.dumps({"error": {"message": "Why.", "code": code}})
    page.route("**/v1/chat/completions", lambda route: route.fulfill(status=400, body=refusal))
    ask(page, "What is it?")
    assert problem(page) == told


def test_the_errors_that_are_told_in_chinese_are_ours(browser: Any, url: str) -> None:
    page = opened(browser, url)
    known = page.evaluate("""import("/page/words.js").then(({ WORDS }) => Object.keys(WORDS.zh.errors))""")
    assert set(known) <= {*(each.code for each in _tree(GlmServeError)), "context_length_exceeded"}


def _tree(kind: type[GlmServeError]) -> list[type[GlmServeError]]:
    return [kind, *(each for below in kind.__subclasses__() for each in _tree(below))]


def test_both_languages_have_every_word(browser: Any, url: str) -> None:
    page = opened(browser, url)
    keys = page.evaluate("""import("/page/words.js").then(({ WORDS }) => Object.values(WORDS).map(Object.keys))""")
    assert sorted(keys[0]) == sorted(keys[1])
    named = {
        name for text in (page.content(),) for name in re.findall(r'data-(?:word|label|placeholder)="(\w+)"', text)
    }
    assert named <= set(keys[0])


def test_it_can_be_used_with_the_keyboard_alone(browser: Any, url: str, photo: Path) -> None:
    page = opened(browser, url)
    # Listening begins long before the key is pressed: a browser told to hand the chooser over in the same breath as
    # the key may open its own first, and then no chooser ever comes.
    page.on("filechooser", lambda chooser: chooser.set_files(photo))
    page.focus(".skip")
    order = []
    for _ in range(11):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
    wanted = ["new", "hide", "docs", "language", "theme", "open-settings", "talk", "sample", "question"]
    assert order == [*wanted, "attach", "thinking"]
    page.focus("#question")
    page.keyboard.type("Say [[fine]]")
    page.keyboard.press("Enter")
    assert answer(page, 0) == "fine"
    page.locator("#question:focus").wait_for()
    page.focus("#attach")
    page.keyboard.press("Enter")
    page.locator("#attached li").wait_for()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_it_can_be_read_by_everybody_and_nothing_overflows(
    browser: Any, url: str, photo: Path, theme: str, viewport: Any
) -> None:
    page = opened(browser, url, viewport, color_scheme=theme)

    def check(what: str) -> None:
        assert barriers(page) == "", what
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), what
        assert page.evaluate("document.getElementById('send').getBoundingClientRect().bottom <= innerHeight"), what

    check("at first")
    attach(page, photo)
    said = "<think>hm</think>" + "long " * 60 + "x" * 200 + "\n\n```python\nreturn 1\n```\n\n| a |\n|---|\n| b |"
    ask(page, f"Say [[{said}]]")
    answer(page, 0)
    attach(page, photo)
    check("in a chat")
    page.click("#open-settings")
    assert barriers(page) == ""
    page.keyboard.press("Escape")
    if viewport == PHONE:
        page.click("#menu")
        check("with its list of chats")


def test_a_key_is_asked_for_where_one_is_needed(browser: Any, page_build: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    secret = create_key(keys, "visitor")
    with live_gateway(page_build, KEYS_FILE=str(keys)) as url:
        page = browser.new_page()
        page.goto(url)
        page.locator("#key-row").wait_for()
        ask(page, "Say [[come in]]")
        assert "field “API key”" in problem(page)
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
