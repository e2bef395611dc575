"""A request that the engine has no place for is refused before it is tokenised and decoded, while that is likely."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from eventually import eventually
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from samples import OPENAI_URL, URL, assert_problem

import gateway.chat.service
from gateway.app import create_app
from gateway.chat.place_check import PlaceCheck
from gateway.chat.prompts import Prompts
from gateway.deadline import Deadline
from gateway.settings import GatewaySettings
from gateway.triton.backend import Cancellation, Chunk, GenerateRequest
from glmserve.contract import Finish
from glmserve.errors import BackendDown, GlmServeError, Overloaded

LONG = "word " * 2000


class FullBackend(FakeBackend):
    """Refuses as a full engine does: at once, whoever asks for an answer or for a place."""

    is_full = True
    queue_ms = 0.0

    def generate(self, request: GenerateRequest) -> Generator[Chunk]:
        if self.is_full:
            self.requests.append(request)
            raise Overloaded("The wait queue is full; try again shortly.", 7)
        if request.answers < 0:
            self.requests.append(request)
            yield Chunk((), Finish.STOP, (0.0, 0.0, 0.0, 0.0), 0)
            return
        yield from super().generate(request)

    @property
    def places_asked_for(self) -> list[GenerateRequest]:
        return [request for request in self.requests if request.answers < 0]


@pytest.fixture
def backend(says: Callable[..., list[Chunk]]) -> FullBackend:
    return FullBackend(says())


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every image that is decoded."""
    return _counted(monkeypatch, gateway.chat.service.ChatService, "_decode")


@pytest.fixture
def tokenised(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every prompt that is tokenised."""
    return _counted(monkeypatch, Prompts, "prompt")


def _counted(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[object]:
    calls, ours = list[object](), getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args: (calls.append(args), ours(*args))[1])
    return calls


def _said(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 4}


@pytest.fixture
def refused_once(client: FlaskClient) -> Iterator[None]:
    """A short question, which costs nothing to read, has met the full engine."""
    assert client.post(OPENAI_URL, json=_said("Hi.")).status_code == 503
    yield


@pytest.mark.usefixtures("refused_once")
@pytest.mark.parametrize("sends_text", [False, True], ids=["images", "long texts"])
def test_refused_requests_are_neither_decoded_nor_tokenised(
    client: FlaskClient, decoded: list[object], tokenised: list[object], image: str, sends_text: bool
) -> None:
    for _ in range(3):
        if sends_text:
            response = client.post(OPENAI_URL, json=_said(LONG))
        else:
            response = client.post(URL, json={"image": image, "prompt": "?"})
        assert_problem(response, 503, "busy")
        assert response.headers["Retry-After"] == "7"
    assert (len(decoded), len(tokenised)) == (0, 0)


@pytest.mark.usefixtures("refused_once")
def test_a_place_is_asked_for_no_more_than_will_be_needed(
    client: FlaskClient, backend: FullBackend, image: str
) -> None:
    asked = {"image": image, "prompt": "?", "max_tokens": 9}
    client.post(URL, json=asked)
    backend.is_full = False
    assert client.post(URL, json=asked).status_code == 200
    question, answer = backend.requests[-2:]
    assert question.answers == -1 and question.patches is None and answer.answers == 1
    assert answer.patches is not None
    assert 0 < len(question.input_ids) < len(answer.input_ids)
    assert question.sampling.max_tokens == 9 and 0 < question.deadline_s >= answer.deadline_s


def test_nobody_asks_while_there_are_places(client: FlaskClient, backend: FullBackend, image: str) -> None:
    backend.is_full = False
    for _ in range(3):
        assert client.post(URL, json={"image": image, "prompt": "?"}).status_code == 200
    assert not backend.places_asked_for


@pytest.mark.usefixtures("refused_once")
def test_a_short_question_needs_no_place_beforehand(client: FlaskClient, backend: FullBackend) -> None:
    client.post(OPENAI_URL, json=_said("Hi."))
    assert not backend.places_asked_for


def test_an_answer_that_waited_for_its_slot_tells_that_places_are_scarce(
    client: FlaskClient, backend: FullBackend, image: str, decoded: list[object]
) -> None:
    backend.is_full = False
    backend.chunks[-1] = Chunk((), Finish.STOP, (80.0, 0.0, 1.0, 1.0))
    assert client.post(OPENAI_URL, json=_said("Hi.")).status_code == 200
    backend.is_full = True
    assert client.post(URL, json={"image": image, "prompt": "?"}).status_code == 503
    assert not decoded


class _Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_ten_seconds_without_a_refusal_are_enough_to_ask_nobody(backend: FullBackend) -> None:
    clock = _Clock()
    places = PlaceCheck(backend, clock)
    _check(places)
    assert not backend.requests
    with pytest.raises(Overloaded), places.watching():
        raise Overloaded
    clock.now_s += 9
    with pytest.raises(Overloaded):
        _check(places)
    clock.now_s += 9
    backend.is_full = False
    _check(places)
    clock.now_s += 2
    _check(places)
    assert len(backend.requests) == 2


@pytest.mark.parametrize("error", [BackendDown(), GlmServeError()])
def test_a_question_that_fails_otherwise_refuses_nobody(backend: FullBackend, error: GlmServeError) -> None:
    """Such as one that an engine of an earlier release does not understand."""
    places = PlaceCheck(backend)
    with pytest.raises(Overloaded), places.watching():
        raise Overloaded
    backend.is_full, backend.chunks, backend.error = False, [], error
    backend.generate = lambda _request: _raising(error)  # type: ignore[method-assign]
    _check(places)


def _raising(error: GlmServeError) -> Generator[Chunk]:
    raise error
    yield


def _check(places: PlaceCheck) -> None:
    places.check(5, 7, 1, Deadline.after(10), Cancellation())


def test_a_full_gateway_tokenises_and_decodes_nothing(
    settings: GatewaySettings,
    says: Callable[..., list[Chunk]],
    image: str,
    decoded: list[object],
    tokenised: list[object],
) -> None:
    """As many requests as there may be are under way, and the engine was never asked for another one."""
    gate = threading.Event()
    backend = FakeBackend(says(), gate=gate)
    client = create_app(settings.model_copy(update={"threads": 2}), backend).test_client()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.post, OPENAI_URL, json=_said("Hi."))
        assert eventually(lambda: backend.requests)
        tokenised.clear()
        for refused in (
            client.post(URL, json={"image": image, "prompt": "?"}),
            client.post(OPENAI_URL, json=_said("Hi.")),
        ):
            assert_problem(refused, 503, "busy")
        gate.set()
        assert running.result().status_code == 200
    assert (len(decoded), len(tokenised), len(backend.requests)) == (0, 0, 1)
