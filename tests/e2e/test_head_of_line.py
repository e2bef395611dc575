"""Large pictures that nobody waits for any more keep no text question waiting, on an encoder that takes seconds."""

from __future__ import annotations

import base64
import io
import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from eventually import eventually
from flask.testing import FlaskClient
from rich.console import Console
from serving import metric, triton_on

from export.build.pipeline import build
from export.verify.cases import synthetic_image
from gateway.app import create_app
from gateway.settings import GatewaySettings
from gateway.triton.grpc_client import TritonBackend
from gateway.triton.load_balancer import LoadBalancer
from launcher.triton_server import TritonServer

pytestmark = [pytest.mark.triton, pytest.mark.alone]
DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
WIDE = (1920, 1080)
PHOTO_TIMEOUT_S = 1
PHOTOS = 4


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TritonServer, FlaskClient]]:
    """The demo, which takes pictures as large as the real model does: 10,764 patches of a photo, all of which see all
    others, keep its small encoder busy for seconds."""
    folder = tmp_path_factory.mktemp("wide")
    checkpoint = Path(shutil.copytree(DEMO, folder / "checkpoint", ignore=shutil.ignore_patterns("golden")))
    rules = json.loads((checkpoint / "preprocessor_config.json").read_text("utf-8"))
    rules["size"]["longest_edge"] = 9_633_792
    (checkpoint / "preprocessor_config.json").write_text(json.dumps(rules), "utf-8")
    made = build(checkpoint, folder / "builds", Console(quiet=True))
    with (
        triton_on(made, require_certificate=False) as triton,
        closing(LoadBalancer(triton.grpc_url, lambda url: TritonBackend(url, 10.0))) as pool,
    ):
        yield triton, create_app(GatewaySettings(build=made), pool).test_client()


def _ask(client: FlaskClient, content: object, timeout_s: int) -> tuple[int, float]:
    """The status, and the seconds that it took."""
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 2, "temperature": 0}
    began = time.monotonic()
    reply = client.post("/v1/chat/completions", json=body, headers={"X-Request-Timeout": str(timeout_s)})
    return reply.status_code, time.monotonic() - began


def _photo(seed: int) -> list[dict[str, object]]:
    file = io.BytesIO()
    synthetic_image(*WIDE, seed=seed).save(file, "JPEG")
    url = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is this?"}]


def test_a_text_question_does_not_wait_for_photos_whose_askers_have_left(
    served: tuple[TritonServer, FlaskClient],
) -> None:
    triton, client = served
    assert _ask(client, "Hi before", 60)[0] == 200
    answered, one_photo_s = _ask(client, _photo(0), 120)
    assert answered == 200 and one_photo_s > 2 * PHOTO_TIMEOUT_S, "a slow encoder is what this is about"
    photos: list[tuple[int, float]] = []
    asking = [
        threading.Thread(target=lambda seed=seed: photos.append(_ask(client, _photo(seed), PHOTO_TIMEOUT_S)))
        for seed in range(1, PHOTOS + 1)
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    status, behind_s = _ask(client, "Hi behind", 60)
    said = f"one photo {one_photo_s:.1f} s; abandoned {photos}; text behind them {behind_s:.2f} s"
    print(said)
    codes = {code for code, _ in photos}
    assert 504 in codes and codes <= {503, 504}, f"refused at once where it is known not to end in time: {said}"
    assert status == 200 and behind_s < min(2.0, one_photo_s / 2), said
    assert eventually(lambda: metric(triton, "glm_requests_waiting") == 0), said
