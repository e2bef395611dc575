"""Several images in one request: each is decoded by itself, with others in between, while anybody waits for them."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eventually import eventually
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from PIL import Image
from samples import OPENAI_URL, assert_problem, base64_of

import gateway.chat.service
from gateway.chat.service import ChatService
from gateway.deadline import Deadline
from gateway.schemas.conversation import Conversation, SentImage, Turn
from gateway.settings import GatewaySettings
from gateway.triton.backend import Cancellation
from glmserve.errors import Cancelled, DeadlineExceeded
from glmserve.model.image_processor import ImageRules, merge_planes
from glmserve.sampling_parameters import Sampling

WAIT_S = 10


@pytest.fixture
def service(build: Path) -> ChatService:
    return ChatService(GatewaySettings(build=build, image_decoders=1), FakeBackend())


@pytest.fixture
def on_decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[np.ndarray], None]], None]:
    """Has a function called with every image once it is decoded."""

    def install(look: Callable[[np.ndarray], None]) -> None:
        def looked_at(planes: np.ndarray, rules: ImageRules) -> np.ndarray:
            look(planes)
            return merge_planes(planes, rules)

        monkeypatch.setattr(gateway.chat.service, "merge_planes", looked_at)

    return install


def asked(image: str, count: int) -> Conversation:
    return Conversation((Turn("user", (*[SentImage(image)] * count, "Hi")),), Sampling(max_tokens=1))


def test_a_client_that_leaves_has_no_further_image_decoded(service: ChatService, on_decoding: Any, image: str) -> None:
    cancellation, decoded = Cancellation(), list[np.ndarray]()
    on_decoding(lambda image: (decoded.append(image), cancellation.cancel()))
    with pytest.raises(Cancelled):
        service.prepare(asked(image, 3), Deadline.after(WAIT_S), cancellation)
    assert len(decoded) == 1


def test_a_deadline_that_passes_has_no_further_image_decoded(
    service: ChatService, on_decoding: Any, image: str
) -> None:
    decoded = list[np.ndarray]()

    @dataclass(frozen=True)
    class UntilTheFirst(Deadline):
        def left_s(self) -> float:
            if decoded:
                raise DeadlineExceeded
            return super().left_s()

    on_decoding(decoded.append)
    with pytest.raises(DeadlineExceeded):
        service.prepare(asked(image, 3), UntilTheFirst(time.monotonic() + WAIT_S), Cancellation())
    assert len(decoded) == 1


def test_another_request_decodes_between_two_images_of_one(service: ChatService, on_decoding: Any, image: str) -> None:
    order, begun, gate = list[str](), threading.Event(), threading.Event()

    def look(_: np.ndarray) -> None:
        order.append(threading.current_thread().name)
        begun.set()
        gate.wait(WAIT_S)

    def ask(count: int) -> None:
        service.prepare(asked(image, count), Deadline.after(WAIT_S), Cancellation())

    on_decoding(look)
    many, one = (ThreadPoolExecutor(1, name) for name in ("many", "one"))
    with many, one:
        answers = [many.submit(ask, 3)]
        assert begun.wait(WAIT_S)
        answers.append(one.submit(ask, 1))
        assert eventually(lambda: service._image_decoders.counts()[1] == 1)
        gate.set()
        for answer in answers:
            answer.result(WAIT_S)
    assert [name.split("_")[0] for name in order] == ["many", "one", "many", "many"]


def test_a_decoded_image_is_not_kept_while_the_next_is_decoded(
    service: ChatService, on_decoding: Any, image: str
) -> None:
    seen, alive = list[weakref.ref[np.ndarray]](), list[int]()

    def look(image: np.ndarray) -> None:
        alive.append(sum(earlier() is not None for earlier in seen))
        seen.append(weakref.ref(image))

    on_decoding(look)
    service.prepare(asked(image, 3), Deadline.after(WAIT_S), Cancellation())
    assert alive == [0, 0, 0]


def test_of_several_images_the_one_that_is_too_narrow_is_named(client: FlaskClient, image: str) -> None:
    narrow = base64_of(Image.new("RGB", (2000, 5)))
    content = [{"type": "image_url", "image_url": f"data:image/png;base64,{data}"} for data in (image, narrow)]
    response = client.post(OPENAI_URL, json={"messages": [{"role": "user", "content": content}]})
    assert_problem(response, 400, "narrow")
    assert response.get_json()["error"]["param"] == "messages[0].content[1].image_url"
