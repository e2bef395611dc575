"""Chats stay in the browser, can be left and found again, and leave it as files; settings go with every question."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chat_page import PHONE, answer, ask, attach, opened

pytestmark = pytest.mark.browser
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]


def sent(page: Any) -> list[dict[str, Any]]:
    """The bodies of all questions asked from now on."""
    bodies: list[dict[str, Any]] = []
    page.on("request", lambda request: bodies.append(request.post_data_json) if request.method == "POST" else None)
    return bodies


def test_a_chat_outlives_a_reload_with_its_images(browser: Any, url: str, photo: Path) -> None:
    page = opened(browser, url)
    attach(page, photo)
    ask(page, "Say [[kept]]")
    answer(page, 0)
    page.locator("#chats li").wait_for()
    page.reload()
    assert answer(page, 0) == "kept" and page.locator("article.you .thumbnail").count() == 1
    ask(page, "Say [[and more]]")
    assert answer(page, 1) == "and more" and "(0 of images)" not in page.locator(".stats").last.inner_text()


def test_chats_are_listed_opened_and_deleted(browser: Any, url: str) -> None:
    page = opened(browser, url)
    for name in ("one", "two"):
        page.click("#new")
        ask(page, f"Say [[{name}]]")
        answer(page, 0)
    assert [title.strip() for title in page.locator("#chats .plain").all_inner_texts()] == [
        "Say [[two]]",
        "Say [[one]]",
    ]
    page.locator("#chats .plain").last.click()
    assert answer(page, 0) == "one"
    page.get_by_label("Delete: Say [[one]]").click()
    page.locator("#welcome").wait_for()
    assert page.locator("#chats li").count() == 1
    page.click("#delete-all")
    page.locator("#no-chats").wait_for()
    page.reload()
    page.locator("body[data-met]").wait_for()
    assert page.locator("#chats li").count() == 0 and page.problems == []


def test_chats_are_saved_as_files(browser: Any, url: str, photo: Path) -> None:
    page = opened(browser, url)
    attach(page, photo)
    ask(page, "Say [[kept]]")
    answer(page, 0)
    page.locator("#export-json:enabled").wait_for()
    with page.expect_download() as saving:
        page.click("#export-json")
    [chat] = json.loads(Path(saving.value.path()).read_text("utf-8"))
    assert [turn["text"] for turn in chat["turns"]] == ["Say [[kept]]", "kept"]
    with page.expect_download() as saving:
        page.click("#export-markdown")
    text = Path(saving.value.path()).read_text("utf-8")
    assert text.startswith("# Say [[kept]]\n") and "](data:image/png;base64," in text and text.endswith("kept\n")


def test_settings_go_with_every_question_and_outlive_a_reload(browser: Any, url: str) -> None:
    page = opened(browser, url)
    bodies = sent(page)
    ask(page, "Say [[plain]]")
    answer(page, 0)
    assert not {"temperature", "max_tokens", "response_format", "tools"} & bodies[0].keys()
    page.click("#open-settings")
    page.fill("[name=system]", "Be brief.")
    page.fill("[name=temperature]", "0")
    page.fill("[name=max_tokens]", "3")
    page.click("[name=save]")
    page.reload()
    page.locator("body[data-met]").wait_for()
    ask(page, "Say [[one two three four five six seven]]")
    answer(page, 1)
    assert bodies[-1]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (bodies[-1]["temperature"], bodies[-1]["max_tokens"]) == (0, 3)
    assert page.get_by_text("Cut off at the maximum number of tokens").is_visible()


def test_a_schema_and_tools_must_be_json(browser: Any, url: str) -> None:
    page = opened(browser, url)
    bodies = sent(page)
    page.click("#open-settings")
    page.fill("[name=schema]", "{oops")
    page.click("[name=save]")
    assert page.locator("#settings .problem").inner_text() == "The schema must be a JSON object."
    page.fill("[name=schema]", '{"type": "object"}')
    page.fill("[name=tools]", "{}")
    page.click("[name=save]")
    assert page.locator("#settings .problem").inner_text() == "The tools must be a JSON list."
    page.fill("[name=tools]", "")
    page.click("[name=save]")
    assert page.locator("#mode").inner_text() == "answers in JSON"
    ask(page, "Say [[{}]]")
    answer(page, 0)
    assert bodies[-1]["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_a_call_is_shown_and_its_result_goes_back(browser: Any, url: str) -> None:
    page = opened(browser, url)
    page.click("#open-settings")
    page.fill("[name=tools]", json.dumps(TOOLS))
    page.click("[name=save]")
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"a": 1}'}}
    events = [
        {"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}},
    ]
    stream = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    bodies: list[dict[str, Any]] = []

    def reply(route: Any) -> None:
        bodies.append(route.request.post_data_json)
        route.fulfill(status=200, content_type="text/event-stream", body=stream)

    page.route("**/v1/chat/completions", reply)
    ask(page, "How is the weather?")
    page.get_by_text("Calls weather").wait_for()
    page.get_by_label("Its result").fill("sunny")
    page.keyboard.press("Enter")
    page.get_by_text("Calls weather").nth(1).wait_for()
    assert bodies[-1]["messages"][-1] == {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
    assert bodies[-1]["messages"][-2]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"a": 1}'}


def test_a_call_waits_for_its_result_through_a_reload_until_something_else_is_asked(browser: Any, url: str) -> None:
    page = opened(browser, url)
    calls = [
        {"index": i, "id": f"call_{i}", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
        for i in range(2)
    ]
    events: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": {"tool_calls": calls}, "finish_reason": "tool_calls"}]},
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}},
    ]
    stream = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(status=200, content_type="text/event-stream", body=stream),
        times=1,
    )
    ask(page, "How is the weather?")
    page.get_by_label("Its result").nth(1).wait_for()
    page.get_by_label("Its result").first.fill("sunny")
    page.keyboard.press("Enter")
    page.locator(".call input:focus").wait_for()
    page.wait_for_timeout(500)  # the browser's storage takes a moment after the page shows it
    page.reload()
    page.get_by_label("Its result").wait_for()
    assert page.get_by_label("Its result").count() == 1 and page.locator("article").count() == 3
    ask(page, "Say [[never mind]]")
    assert answer(page, 1) == "never mind" and page.get_by_label("Its result").count() == 0


def test_on_a_phone_the_list_of_chats_goes_away_by_a_tap_beside_it_and_by_escape(browser: Any, url: str) -> None:
    page = opened(browser, url, PHONE)
    for leave in (lambda: page.mouse.click(370, 400), lambda: page.keyboard.press("Escape")):
        page.click("#menu")
        page.locator("#sidebar").wait_for()
        leave()
        page.locator("#sidebar").wait_for(state="hidden")
    page.locator("#menu:focus").wait_for()
    assert page.problems == []
