"""The page of the API in a real browser."""

from __future__ import annotations

from typing import Any

import pytest
from chat_page import PHONE

pytestmark = pytest.mark.browser


def test_the_documentation_shows_every_address(browser: Any, url: str) -> None:
    page = browser.new_page()
    page.goto(f"{url}/docs")
    page.locator("h2").first.wait_for()
    shown = page.locator("#document").inner_text()
    assert all(path in shown for path in ("/v1/chat/vision", "/v1/chat/completions", "/metrics", "repetition_penalty"))
    assert all(head.inner_text() for head in page.locator("th").all())
    api = page.evaluate("fetch('/openapi.json').then((reply) => reply.json())")
    bodies = [schema for schema in api["components"]["schemas"].values() if "properties" in schema]
    said = [field.get("description", "") for body in bodies for field in body["properties"].values()]
    shown_once = page.get_by_text("How freely tokens are drawn").count()
    assert shown_once == sum("How freely tokens are drawn" in text for text in said), "each body is shown once"
    assert page.locator("tr", has_text="max_tokens").first.inner_text().split("\t")[1:3] == ["integer", "512"]
    contents = [
        content
        for methods in api["paths"].values()
        for operation in methods.values()
        for content in (operation.get("requestBody", {}), operation["responses"]["200"])
    ]
    examples = sum("example" in content.get("content", {}).get("application/json", {}) for content in contents)
    assert page.locator("pre").count() == examples >= 4, "a request and its answer on each chat route"
    for link in page.locator("#document a").all():
        assert page.locator(str(link.get_attribute("href"))).count() == 1


def test_the_documentation_can_be_read_on_a_phone(browser: Any, url: str) -> None:
    page = browser.new_context(viewport=PHONE).new_page()
    page.goto(f"{url}/docs")
    page.locator("h2").first.wait_for()
    assert page.evaluate("document.getElementById('document').scrollWidth <= innerWidth")
    narrow = "[...document.querySelectorAll('td')].filter((cell) => cell.offsetParent && cell.clientWidth < 250).length"
    assert page.evaluate(narrow) == 0, "no cell is so narrow that its words break"
