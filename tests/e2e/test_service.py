"""The service as its users meet it: the contract, photographs, seeds, departures and death."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError

import numpy as np
import pytest
from eventually import eventually
from PIL import Image
from serving import Service, metric, png, serving

from gateway.triton.backend import GenerateRequest
from gateway.triton.grpc_client import TritonBackend
from glmserve.sampling_parameters import Sampling
from launcher.gateway_server import GatewayServer
from launcher.triton_server import TritonServer

LONG = Sampling(max_tokens=4000, temperature=2.0, seed=1)

pytestmark = pytest.mark.triton
DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"


def test_the_bare_contract_is_answered(service: Service, demo_build: Path) -> None:
    answer = service.ask((demo_build / "canary" / "image.png").read_bytes(), "What is in the picture?")
    assert answer["success"] is True and answer["model"] == "GLM-4.6V-Flash-WEB" and isinstance(answer["result"], str)
    assert {"usage", "finish_reason", "request_id"} <= answer.keys()


def test_it_is_alive_and_ready(service: Service, demo_build: Path) -> None:
    assert service.get("/health/live") == (200, {"status": "alive"})
    status, body = service.get("/health/ready")
    assert status == 200 and body["build"] == demo_build.name


@pytest.mark.parametrize(("body", "field"), [([], "image"), ({"prompt": "?"}, "image"), ({"image": "AAAA"}, "prompt")])
def test_a_wrong_request_is_told_which_field(service: Service, body: object, field: str) -> None:
    with pytest.raises(HTTPError) as caught:
        service.post(body)
    with caught.value as reply:
        text = reply.read().decode()
    assert caught.value.code == 400 and field in text and '"success":false' in text.replace(" ", "")


@pytest.mark.parametrize("photo", ["china.jpg", "flower.jpg"])
def test_a_photograph_goes_through(service: Service, photo: str) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    buffer = io.BytesIO()
    Image.fromarray(datasets.load_sample_image(photo)).save(buffer, "JPEG")
    answer = service.ask(buffer.getvalue(), "Describe the picture.", temperature=0)
    assert answer["success"] and answer["usage"]["image_tokens"] > 30


def test_the_same_seed_gives_the_same_words_whatever_else_runs(service: Service) -> None:
    noise = Image.fromarray(np.random.default_rng(3).integers(0, 255, (112, 140, 3), dtype=np.uint8))

    def ask(seed: int) -> str:
        return str(service.ask(noise, "描述图片。", temperature=2.0, seed=seed, max_tokens=24)["result"])

    alone = ask(5)
    with ThreadPoolExecutor(8) as pool:
        crowd = list(pool.map(ask, [1, 2, 5, 3, 4, 5, 6, 7]))
    assert crowd[2] == crowd[5] == alone
    assert len(set(crowd)) > 3


def _settled(triton: TritonServer, name: str) -> float:
    """A counter, once what other tests left has been published too."""
    before, now = -1.0, metric(triton, name)
    while now != before:
        time.sleep(0.6)
        before, now = now, metric(triton, name)
    return now


def test_a_client_that_leaves_frees_its_slot(endless: TritonServer) -> None:
    backend = TritonBackend(endless.grpc_url, 10.0)
    failed = _settled(endless, "glm_requests_failed_total")
    request = GenerateRequest("leaver", np.arange(5, 60), None, (), LONG, 60.0)
    chunks = backend.generate(request)
    next(chunks)
    assert eventually(lambda: metric(endless, "glm_requests_running") == 1)
    chunks.close()
    assert eventually(lambda: metric(endless, "glm_requests_running") == 0, 3.0)
    assert eventually(lambda: metric(endless, "glm_requests_failed_total") == failed + 1)
    backend.close()


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("is_early", [True, False], ids=["before the first word", "in the middle"])
def test_an_http_client_that_vanishes_frees_its_slot(
    endless: TritonServer, endless_gateway: GatewayServer, is_stream: bool, is_early: bool
) -> None:
    asked = {"messages": [{"role": "user", "content": "?"}], "max_tokens": 4000, "stream": is_stream}
    body = json.dumps(asked).encode()
    host, port = endless_gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        if not is_early:
            assert eventually(lambda: metric(endless, "glm_requests_running") == 1)
    assert eventually(lambda: metric(endless, "glm_requests_running") == 0, 3.0)
    assert eventually(lambda: metric(endless, "glm_requests_waiting") == 0)


def test_a_deadline_reaches_the_engine(endless: TritonServer) -> None:
    backend = TritonBackend(endless.grpc_url, 10.0)
    request = GenerateRequest("late", np.arange(5, 60), None, (), LONG, 0.3)
    began = time.monotonic()
    with pytest.raises(Exception) as caught:
        list(backend.generate(request))
    assert getattr(caught.value, "code", "") in ("deadline_exceeded",) and time.monotonic() - began < 3
    assert eventually(lambda: metric(endless, "glm_requests_running") == 0, 3.0)
    backend.close()


def test_ids_outside_the_vocabulary_are_refused(service: Service) -> None:
    backend = TritonBackend(service.triton.grpc_url, 10.0)
    with pytest.raises(Exception, match="Token ids must lie between 0 and"):
        list(
            backend.generate(GenerateRequest("x", np.array([1, 10**6]), None, (), Sampling(max_tokens=4, seed=1), 5.0))
        )
    backend.close()


def test_a_dead_engine_is_a_503_and_never_a_hang(demo_build: Path) -> None:
    with serving(demo_build) as doomed:
        assert doomed.get("/health/ready")[0] == 200
        assert doomed.triton.pid is not None
        os.kill(doomed.triton.pid, signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(HTTPError) as caught:
            doomed.ask(png(Image.new("RGB", (84, 84))), "?")
        with caught.value as reply:
            text = reply.read().decode()
        assert caught.value.code == 503 and time.monotonic() - began < 5
        assert not re.search(r"127\.0|grpc|0x|/", text.split('"request_id"')[0]), text
        assert eventually(lambda: doomed.get("/health/ready")[0] == 503, 8.0)
        assert doomed.get("/health/live")[0] == 200


def test_a_dead_stub_turns_readiness_red(demo_build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton itself goes on calling the model ready when its Python process is gone."""
    monkeypatch.setenv("GLM_GATEWAY_CANARY_TIMEOUT_S", "2")  # or this alone would take 10 s
    with serving(demo_build) as doomed:
        stubs = subprocess.run(
            ["pgrep", "-P", str(doomed.triton.pid), "-f", "stub.*glm4v"], capture_output=True, text=True, check=False
        ).stdout.split()
        assert stubs and doomed.triton.pid is not None
        for stub in stubs:
            os.kill(int(stub), signal.SIGKILL)
        assert eventually(lambda: doomed.get("/health/ready")[0] == 503, 20.0)
        os.kill(doomed.triton.pid, signal.SIGKILL)  # it would wait 10 s for its dead models


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_python_example_of_the_readme_runs(service: Service, name: str) -> None:
    root = Path(__file__).resolve().parents[2]
    example = re.findall(r"```python\n(.*?)```", (root / name).read_text("utf-8"), re.DOTALL)
    assert len(example) == 1 and "http://127.0.0.1:5000" in example[0]
    code = example[0].replace("http://127.0.0.1:5000", service.gateway.url)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_the_curl_example_of_the_readme_runs(service: Service) -> None:
    root = Path(__file__).resolve().parents[2]
    found = re.search(r"```sh\n(curl .*?)```", (root / "README.md").read_text("utf-8"), re.DOTALL)
    assert found
    command = found.group(1).replace("http://127.0.0.1:5000", service.gateway.url)
    done = subprocess.run(["bash", "-c", command], cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert '"success":true' in done.stdout.replace(" ", ""), done.stderr


@pytest.mark.parametrize(("prompts", "status"), [(5, 200), (6, 400), (32, 400)])
def test_more_answers_at_once_than_there_are_places_are_told_so(service: Service, prompts: int, status: int) -> None:
    """16 slots and 64 places to wait in."""
    asked = {"prompt": [f"Number {i}:" for i in range(prompts)], "n": 16, "max_tokens": 2}
    request = urllib.request.Request(
        f"{service.gateway.url}/v1/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            found, said = reply.status, json.load(reply)
    except HTTPError as error:
        with error:
            found, said = error.code, json.load(error)
    assert found == status, said
    if status == 200:
        assert len(said["choices"]) == 16 * prompts
    else:
        assert said["error"]["param"] == "prompt" and f"{16 * prompts} answers" in said["error"]["message"]
        assert "80 places" in said["error"]["message"]
