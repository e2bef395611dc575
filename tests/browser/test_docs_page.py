"""The page of the API in a real browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from chat_page import PHONE, WIDE, barriers, opened
from PIL import Image

ANSWERED = "Hello."
STREAMED = {
    "/v1/chat/vision": "finish_reason",
    "/v1/chat/completions": "finish_reason",
    "/v1/completions": "finish_reason",
    "/v1/responses": "response.completed",
    "/v1/messages": "message_stop",
}
ASKING = tuple(STREAMED)

pytestmark = pytest.mark.browser


def test_the_documentation_shows_every_address(browser: Any, url: str) -> None:
    page = browser.new_page()
    page.goto(f"{url}/docs")
    page.locator("h2").first.wait_for()
    shown = page.locator("#document").inner_text()
    assert all(path in shown for path in ("/v1/chat/vision", "/v1/chat/completions", "/metrics", "repetition_penalty"))
    assert all(page.locator("th").all_inner_texts())
    api = page.evaluate("fetch('/openapi.json').then((reply) => reply.json())")
    bodies = [schema for schema in api["components"]["schemas"].values() if "properties" in schema]
    said = [field.get("description", "") for body in bodies for field in body["properties"].values()]
    shown_once = page.get_by_text("How freely tokens are drawn").count()
    assert shown_once == sum("How freely tokens are drawn" in text for text in said), "each body is shown once"
    cells = page.locator("tr", has_text="max_tokens").first.locator("td").all_inner_texts()
    assert cells[:3] == ["max_tokens", "integer", "512"]
    operations = [operation for methods in api["paths"].values() for operation in methods.values()]
    answers = [operation["responses"]["200"] for operation in operations]
    examples = sum("example" in reply.get("content", {}).get("application/json", {}) for reply in answers)
    assert page.get_by_role("heading", name="An answer").count() == examples >= 2
    bodies = page.locator("textarea").evaluate_all("found => found.map((each) => each.value)")
    assert len(bodies) == sum("requestBody" in content for content in operations) and all(map(json.loads, bodies))
    links = page.locator("#document a").evaluate_all("found => found.map((each) => each.getAttribute('href'))")
    assert [link for link in links if page.locator(link).count() != 1] == []


def test_the_documentation_can_be_read_on_a_phone(browser: Any, url: str) -> None:
    page = browser.new_context(viewport=PHONE).new_page()
    page.goto(f"{url}/docs")
    page.locator("h2").first.wait_for()
    assert page.evaluate("document.getElementById('document').scrollWidth <= innerWidth")
    narrow = "[...document.querySelectorAll('td')].filter((cell) => cell.offsetParent && cell.clientWidth < 250).length"
    assert page.evaluate(narrow) == 0, "no cell is so narrow that its words break"


def shown_page(browser: Any, url: str, **options: Any) -> Any:
    page = opened(browser, f"{url}/docs", until=".operation", **options)
    page.set_default_timeout(10_000)
    return page


def operation(page: Any, path: str, method: str = "post") -> Any:
    heading = page.locator(f"h2#{method}{path.replace('/', '-')}")
    return page.locator(".operation").filter(has=heading)


@pytest.mark.parametrize("path", ASKING)
def test_what_is_tried_is_answered_on_the_page(browser: Any, url: str, path: str) -> None:
    page = shown_page(browser, url)
    tried = operation(page, path)
    tried.locator("summary").click()
    tried.get_by_role("button", name="Send").click()
    tried.locator(".output pre", has_text=ANSWERED).wait_for()
    assert tried.locator(".output p").inner_text().startswith("200")
    body = json.loads(tried.locator("textarea").input_value())
    tried.locator("textarea").fill(json.dumps(body | {"stream": True}))
    assert '"stream": true' in tried.locator(".code-tabs pre").inner_text()
    tried.get_by_role("button", name="Send").click()
    tried.locator(".output pre", has_text="data: ").wait_for()
    tried.locator("textarea").fill(json.dumps(body | {"temperature": "warm"}))
    tried.get_by_role("button", name="Send").click()
    tried.locator(".output .failed").wait_for()
    assert "temperature" in tried.locator(".output pre").inner_text()
    tried.locator("textarea").fill("{")
    tried.locator(".problem").wait_for()
    tried.get_by_role("button", name="The example again").click()
    assert json.loads(tried.locator("textarea").input_value()) == body
    assert [each for each in page.problems if "400" not in each] == []


def test_an_image_of_the_visitors_takes_the_examples_place(browser: Any, url: str, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "green").save(tmp_path / "mine.jpg")
    page = shown_page(browser, url)
    for path in ("/v1/chat/vision", "/v1/chat/completions", "/v1/messages"):
        tried = operation(page, path)
        tried.locator("summary").click()
        before = tried.locator("textarea").input_value()
        if not tried.locator("input[type=file]").count():
            continue
        tried.locator("input[type=file]").set_input_files(tmp_path / "mine.jpg")
        page.wait_for_function(
            "([node, text]) => node.value !== text", arg=[tried.locator("textarea").element_handle(), before]
        )
        assert "/9j/" in tried.locator("textarea").input_value()
        tried.get_by_role("button", name="Send").click()
        tried.locator(".output pre", has_text=ANSWERED).wait_for()


@pytest.mark.parametrize("language", ["curl", "Python", "JavaScript"])
@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
def test_the_code_that_is_shown_runs(browser: Any, url: str, tmp_path: Path, language: str, streams: bool) -> None:
    """Python by requests and openai, JavaScript by fetch: what needs a package that is not there is not run."""
    page = shown_page(browser, url)
    ran = 0
    for path in (*ASKING, "/v1/models", "/health/ready"):
        shown = operation(page, path, "post" if path in ASKING else "get")
        shown.get_by_role("tab", name=language).click()
        if streams:
            if path not in ASKING:
                continue
            shown.locator("summary").click()
            body = json.loads(shown.locator("textarea").input_value())
            shown.locator("textarea").fill(json.dumps(body | {"stream": True, "top_k": 5}))
        code = shown.locator(".code-tabs pre").inner_text()
        (tmp_path / "code.mjs").write_text(code, "utf-8")
        if language == "curl":
            command = ["bash", str(tmp_path / "code.mjs")]
        elif language == "Python":
            if "anthropic" in code:
                continue
            command = [sys.executable, str(tmp_path / "code.mjs")]
        else:
            if shutil.which("node") is None or "import " in code:
                continue
            command = ["node", str(tmp_path / "code.mjs")]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ)
        assert result.returncode == 0, (code, result.stderr)
        expected = {"/v1/models": "GLM", "/health/ready": "ready"}.get(path, STREAMED[path] if streams else ANSWERED)
        assert expected in result.stdout, (code, result.stdout)
        ran += 1
    assert ran or shutil.which("node") is None


def test_it_speaks_chinese_and_remembers_it(browser: Any, url: str) -> None:
    page = shown_page(browser, url)
    page.click("#language")
    page.get_by_role("heading", name="API 文档").wait_for()
    shown = page.locator("#document").inner_text()
    assert "抽取词元的自由度；0 表示总取最可能的词元。须为 0 到 2 的数。" in shown and "试一试" in shown
    assert "It must be" not in shown
    page.reload()
    page.get_by_role("heading", name="API 文档").wait_for()
    page.click("#language")
    page.get_by_role("heading", name="The API").wait_for()
    assert "It must be a number from 0 to 2." in page.locator("#document").inner_text()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_the_documentation_can_be_read_by_everybody(browser: Any, url: str, theme: str, viewport: Any) -> None:
    page = shown_page(browser, url, viewport=viewport, color_scheme=theme)
    page.locator(".hljs-attr").first.wait_for(state="attached")
    page.locator("summary").first.click()
    assert barriers(page) == ""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.problems == []
