"""LiteLLM's proxy in front of the service: what it passes on, and that no refusal takes the service out of rotation."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from behaviours.asking import ASKED, CHAT, MESSAGES, MODEL, RESPONSES, TEXT, TOOL, WITH_PICTURE, Reply
from client_programs import PROXY
from eventually import eventually
from running_behaviours import sender

from bench.ports import free_port

pytestmark = [pytest.mark.triton, pytest.mark.timeout(600)]
START_S = 300.0
Send = Callable[..., Reply]
HERE = {"api_key": "none", "max_retries": 0}


@pytest.fixture(scope="module")
def through(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Send]:
    """Sends a body through the proxy: by a name of its own, by any name, or in Anthropic's shape."""
    if not PROXY.exists():
        pytest.skip("LiteLLM's proxy is not installed: make test-clients does that")
    named = [
        {"model_name": "ours", "litellm_params": {**HERE, "model": f"openai/{MODEL}", "api_base": f"{url}/v1"}},
        {"model_name": "theirs", "litellm_params": {**HERE, "model": f"anthropic/{MODEL}", "api_base": url}},
        {"model_name": "*", "litellm_params": {**HERE, "model": "openai/*", "api_base": f"{url}/v1"}},
    ]
    home, port, key = tmp_path_factory.mktemp("proxy"), free_port(), f"sk-{secrets.token_hex(24)}"
    settings = {"num_retries": 0, "allowed_fails": 0, "cooldown_time": 600}
    config = home / "config.yaml"
    config.write_text(json.dumps({"model_list": named, "router_settings": settings}), "utf-8")
    send, address = _sender(port, key), ["--host", "127.0.0.1", "--port", str(port)]
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            [str(PROXY), "--config", str(config), *address],
            cwd=home,  # it imports what lies two folders above
            env=_environment(home, key),
            stdout=log,
            stderr=log,
        )
        try:
            eventually(lambda: _is_up(send) or process.poll() is not None, START_S)
            assert process.poll() is None and _is_up(send), (home / "log").read_text()[-2000:]
            yield send
        finally:
            process.terminate()
            process.wait(30)


def _environment(home: Path, key: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_"))}
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "NO_PROXY": "*"}
    return {**kept, **quiet, "HOME": str(home), "LITELLM_MASTER_KEY": key}


def _sender(port: int, key: str) -> Send:
    send = sender(f"http://127.0.0.1:{port}")
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    return lambda path, body=None: send("GET" if body is None else "POST", path, body, headers)


def _is_up(send: Send) -> bool:
    try:
        return send("/health/liveliness").status == 200
    except OSError:
        return False


def chat(through: Send, model: str = "ours", messages: Any = ASKED, **fields: Any) -> Reply:
    return through(CHAT, {"model": model, "messages": messages, "temperature": 0, **fields})


def test_answers_come_through_whole_and_streamed(through: Send) -> None:
    whole = chat(through)
    reply = chat(through, stream=True, stream_options={"include_usage": True})
    assert reply.streamed() == whole.content and reply.is_done
    assert reply.events[-1]["usage"]["completion_tokens"] == whole.usage["completion_tokens"] > 0


def test_tools_are_called_through_it(through: Send) -> None:
    choice = chat(through, tools=[TOOL], tool_choice="required", max_tokens=96).choice
    assert choice["finish_reason"] == "tool_calls"
    assert set(json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"])) == {"colour", "count"}


def test_images_are_seen_through_it(through: Send) -> None:
    assert chat(through, messages=WITH_PICTURE).content != chat(through, messages=ASKED).content
    assert chat(through, messages=WITH_PICTURE).usage["prompt_tokens"] > 50


@pytest.mark.parametrize("model", ["ours", "theirs"])
@pytest.mark.parametrize("stream", [False, True])
def test_anthropics_messages_come_through_it(through: Send, model: str, stream: bool) -> None:
    reply = through(MESSAGES, {"model": model, "messages": ASKED, "max_tokens": 16, "stream": stream})
    assert reply.status == 200, reply.text
    assert reply.of_type("message_stop") if stream else reply.body["content"][0]["text"]


def test_responses_and_texts_come_through_it(through: Send) -> None:
    assert through(RESPONSES, {"model": "ours", "input": "Who are you?"}).body["status"] == "completed"
    assert through(TEXT, {"model": "ours", "prompt": "The sky", "max_tokens": 4}).body["choices"][0]["finish_reason"]


def test_what_is_refused_takes_nothing_out_of_rotation(through: Send) -> None:
    for _ in range(3):
        refused = [
            chat(through, model="no-such-model"),
            chat(through, messages=[{"role": "user", "content": ""}]),
            chat(through, temperature=9),
            through("/v1/embeddings", {"model": "ours", "input": "Hi"}),
            through(RESPONSES, {"model": "ours", "input": "Hi", "previous_response_id": "resp_1"}),
            through(MESSAGES, {"model": "theirs", "messages": [{"role": "robot", "content": "Hi"}], "max_tokens": 4}),
        ]
        assert [reply.status for reply in refused] == [404, 400, 400, 405, 400, 400]
        for model in ("ours", "theirs", MODEL):
            assert chat(through, model=model, max_tokens=4).status == 200
