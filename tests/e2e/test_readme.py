"""Both READMEs' examples run as they stand, and the real demo answers them as the READMEs show."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from serving import Service

pytest.importorskip("openai")
pytestmark = pytest.mark.triton
ROOT = Path(__file__).resolve().parents[2]
VARYING = ("request_id", "timings")
WAIT_S = 60


def asked(document: str) -> dict[str, str]:
    """The examples of the section about asking, by their language."""
    text = (ROOT / document).read_text("utf-8")
    section = text[text.index("`POST /v1/chat/vision`") :].partition("\n## ")[0]
    return dict(re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL))


def run(command: list[str]) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=True).stdout


@pytest.mark.parametrize("document", ["README.md", "README.zh-CN.md"])
def test_the_readmes_examples_get_the_answer_that_it_shows(service: Service, document: str) -> None:
    examples = asked(document)
    ours = {name: code.replace("http://127.0.0.1:5000", service.gateway.url) for name, code in examples.items()}
    shown = json.loads(examples["json"])
    found: dict[str, Any] = json.loads(run(["bash", "-ec", ours["sh"]]))
    assert {key: found[key] for key in shown if key not in VARYING} == {
        key: value for key, value in shown.items() if key not in VARYING
    }
    assert list(found) == list(shown) and list(found["timings"]) == list(shown["timings"])
    assert run([sys.executable, "-c", ours["python"]]).strip() == shown["result"]


def test_the_api_pages_json_example_gets_the_same_answer(service: Service) -> None:
    example = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text("utf-8"), re.DOTALL)[0]
    assert "urllib.request" in example and '"temperature": 0' in example
    printed = run([sys.executable, "-c", example.replace("http://127.0.0.1:5000", service.gateway.url)])
    assert printed.strip() == json.loads(asked("README.md")["json"])["result"]


def test_the_readmes_form_carries_a_real_photo(service: Service, tmp_path: Path) -> None:
    """Some megabytes, as a telephone takes it: more than a shell's argument may hold."""
    photo = tmp_path / "photo.png"
    photo.write_bytes((ROOT / "demo" / "checkpoint" / "golden" / "canary.png").read_bytes() + bytes(3_000_000))
    code = asked("README.md")["sh"].replace("http://127.0.0.1:5000", service.gateway.url)
    answer = json.loads(run(["bash", "-ec", code.replace("demo/checkpoint/golden/canary.png", str(photo))]))
    assert answer["success"] is True
