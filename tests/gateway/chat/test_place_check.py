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
from glmserve.engine.scheduler.wait_queue import WaitQueue
from glmserve.errors import BackendDown, GlmServeError, InvalidInput, Overloaded

LONG = "word " * 2000
COMPLETIONS_URL = "/v1/completions"


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


def test_a_service_that_stays_full_is_asked_however_seldom_somebody_comes(backend: FullBackend) -> None:
    """Each request that came more than ten seconds after the last was decoded before it was refused."""
    clock = _Clock()
    places = PlaceCheck(backend, clock)
    with pytest.raises(Overloaded), places.watching():
        raise Overloaded
    for asked in range(1, 4):
        clock.now_s += 60
        places.note_wait(0.0, 200.0)  # an answer that began while there was room tells nothing of now
        with pytest.raises(Overloaded):
            _check(places)
        assert len(backend.requests) == asked
    clock.now_s += 60
    places.note_wait(0.0, 20.0)
    _check(places)
    assert len(backend.requests) == 3


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


class SmallBackend(FakeBackend):
    """Has so many places, and says of what it has no places for what the engine's wait queue says."""

    wait_queue = WaitQueue(64, 1 << 40, slots=16)

    def generate(self, request: GenerateRequest) -> Generator[Chunk]:
        tickets = self.wait_queue.enter_all(abs(request.answers), 1)
        try:
            if request.answers > 0:
                yield from super().generate(request)
        finally:
            tickets.leave()


@pytest.fixture
def small(says: Callable[..., list[Chunk]], settings: GatewaySettings) -> tuple[SmallBackend, FlaskClient]:
    backend = SmallBackend(says())
    return backend, create_app(settings, backend).test_client()


@pytest.mark.parametrize("streams", [False, True])
def test_more_prompts_and_answers_than_the_engine_has_places_are_a_mistake_of_the_caller(
    small: tuple[SmallBackend, FlaskClient], tokenised: list[object], streams: bool
) -> None:
    """They were a 503 for ever, and each time some of them were begun."""
    backend, client = small
    for prompts, answers in ((32, 16), (6, 14)):
        response = client.post(
            COMPLETIONS_URL, json={"prompt": ["Hi"] * prompts, "n": answers, "stream": streams, "max_tokens": 4}
        )
        error = response.get_json()["error"]
        assert response.status_code == 400 and error["param"] == "prompt", response.text
        assert f"{prompts * answers} answers" in error["message"] and "80 places" in error["message"]
        assert "fewer" in error["message"] and "Retry-After" not in response.headers
    assert not tokenised and not [request for request in backend.requests if request.answers > 0]


def test_as_many_prompts_as_there_are_places_are_answered(small: tuple[SmallBackend, FlaskClient]) -> None:
    backend, client = small
    backend.wait_queue = WaitQueue(8, 1 << 40, slots=24)
    assert client.post(COMPLETIONS_URL, json={"prompt": ["Hi"] * 32, "max_tokens": 4}).status_code == 200


@pytest.mark.parametrize(("slots", "prompts"), [(1, 3), (16, 32)])
def test_prompts_that_find_no_place_beside_each_other_are_answered_in_turns(
    small: tuple[SmallBackend, FlaskClient], slots: int, prompts: int
) -> None:
    """On a small engine, and on one where somebody else has a place all the time."""
    backend, client = small
    backend.wait_queue = WaitQueue(slots, 1 << 40, slots=slots)
    running = backend.wait_queue.enter(5)
    asked = {"prompt": ["Hi"] * prompts, "max_tokens": 4}
    response = client.post(COMPLETIONS_URL, json=asked)
    assert response.status_code == 200 and len(response.get_json()["choices"]) == prompts
    others = [running, *(backend.wait_queue.enter(5) for _ in range(2 * slots - 1))]
    refused = client.post(COMPLETIONS_URL, json=asked)
    assert refused.status_code == 503 and int(refused.headers["Retry-After"]) > 0
    for other in others:
        other.leave()


def test_several_engines_have_places_together(small: tuple[SmallBackend, FlaskClient]) -> None:
    backend, _ = small
    backend.up = 2
    backend.wait_queue = WaitQueue(10, 1 << 40, slots=10)
    places = PlaceCheck(backend)
    places.check_prompts(40, 1, 4, Deadline.after(10), Cancellation())
    with pytest.raises(InvalidInput):
        places.check_prompts(41, 1, 4, Deadline.after(10), Cancellation())


def test_an_engine_that_cannot_be_asked_for_so_many_places_refuses_nobody(backend: FullBackend) -> None:
    """One of an earlier release, which takes the question for a mistake."""
    error = InvalidInput("The field n must be a whole number from 1 to 16.", "n")
    backend.generate = lambda _request: _raising(error)  # type: ignore[method-assign]
    PlaceCheck(backend).check_prompts(32, 16, 4, Deadline.after(10), Cancellation())


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
