"""Live means the process answers; ready means a picture really went through."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from eventually import eventually
from fake_backend import FakeBackend
from flask.testing import FlaskClient

from gateway.app import create_app
from gateway.chat.readiness import Readiness, canary_question
from gateway.chat.service import ChatService, RequestContext
from gateway.deadline import Deadline
from gateway.settings import GatewaySettings
from gateway.triton.backend import Cancellation, Chunk
from glmserve.build.canary import Canary
from glmserve.build.manifest import Manifest
from glmserve.contract import Finish
from glmserve.errors import BackendDown, BadArtifact, Overloaded

WAIT_S = 30
Script = Callable[..., list[Chunk]]


def readiness_of(
    build: Path, backend: FakeBackend, timeout_s: float = 5, clock: Callable[[], float] = lambda: 0.0
) -> Readiness:
    service = ChatService(GatewaySettings(build=build), backend)
    return Readiness(service, backend, Canary.read(build), timeout_s, 5.0, clock)


def assert_not_ready(client: FlaskClient, reason: str) -> None:
    response = client.get("/health/ready")
    assert response.status_code == 503
    assert response.get_json()["status"] == "not ready"
    assert reason in response.get_json()["reason"]
    assert "Retry-After" in response.headers


def test_live_is_alive_even_without_models(client: FlaskClient, backend: FakeBackend) -> None:
    backend.is_ready = False
    response = client.get("/health/live")
    assert (response.status_code, response.get_json()) == (200, {"status": "alive"})


def test_ready_names_model_and_build_once_the_canary_is_answered(client: FlaskClient, build: Path) -> None:
    response = client.get("/health/ready")
    assert response.status_code == 200
    digest = Manifest.read(build).digest
    assert response.get_json() == {"status": "ready", "model": "GLM-4.6V-Flash-WEB", "build": digest}


def test_the_canary_is_asked_greedily_with_its_image(client: FlaskClient, backend: FakeBackend) -> None:
    client.get("/health/ready")
    request = backend.requests[0]
    assert request.sampling.temperature == 0
    assert request.patches is not None and len(request.patches) > 0


def test_not_ready_while_models_are_not_loaded(client: FlaskClient, backend: FakeBackend) -> None:
    backend.is_ready = False
    assert_not_ready(client, "not loaded")
    assert not backend.requests


def test_not_ready_when_the_canary_is_answered_wrongly(client: FlaskClient, backend: FakeBackend, says: Script) -> None:
    backend.chunks = says("A blue square.")
    assert_not_ready(client, "wrongly")


def test_not_ready_when_the_canary_fails(client: FlaskClient, backend: FakeBackend) -> None:
    backend.chunks, backend.error = [], BackendDown()
    assert_not_ready(client, "backend_down")


def test_a_service_that_is_full_is_ready_all_the_same(client: FlaskClient, backend: FakeBackend) -> None:
    backend.chunks, backend.error = [], Overloaded()
    assert client.get("/health/ready").status_code == 200


@pytest.mark.slow
def test_not_ready_when_the_canary_takes_too_long(build: Path, says: Script) -> None:
    backend = FakeBackend(says(), gate=threading.Event())
    client = create_app(GatewaySettings(build=build, canary_timeout_s=0.5), backend).test_client()
    assert_not_ready(client, "has not been answered within 0.5 s")
    assert backend.gate is not None
    backend.gate.set()


def test_a_canary_that_takes_much_longer_than_the_last_is_given_up(build: Path, says: Script) -> None:
    backend, now = FakeBackend(says()), [0.0]
    readiness = readiness_of(build, backend, timeout_s=0.8, clock=lambda: now[0])
    assert readiness.fault() is None
    backend.gate, now[0] = threading.Event(), 6.0
    fault = str(readiness.fault(WAIT_S))
    given_up = re.search(r"deadline_exceeded within (\S+) s", fault)  # the first one had minutes
    assert given_up and float(given_up[1]) < WAIT_S and "GLM_GATEWAY_CANARY_TIMEOUT_S" in fault


@pytest.mark.slow
def test_a_slow_machine_becomes_ready_with_its_first_answer_however_long_that_takes(build: Path, says: Script) -> None:
    backend = FakeBackend(says(), gate=threading.Event())
    readiness = readiness_of(build, backend)
    assert "The first answer shows how fast this machine is" in str(readiness.fault(0.05))
    assert eventually(lambda: bool(backend.requests))
    assert len(backend.requests) == 1 and backend.requests[0].deadline_s > 60
    assert "has not been answered" in str(readiness.fault(0.05)) and len(backend.requests) == 1  # it is not asked anew
    assert backend.gate is not None
    backend.gate.set()
    assert eventually(lambda: readiness.fault() is None)


@pytest.mark.slow
def test_the_next_canaries_may_take_a_few_times_as_long_as_the_last(build: Path, says: Script) -> None:
    """Meanwhile whoever asks is told what was found last, and does not wait longer than the setting says."""
    backend, now = FakeBackend(says(), gate=threading.Event()), [0.0]
    readiness = readiness_of(build, backend, timeout_s=0.4, clock=lambda: now[0])
    readiness.fault(0.0)
    assert eventually(lambda: bool(backend.requests))
    time.sleep(0.5)
    assert backend.gate is not None
    backend.gate.set()
    assert eventually(lambda: readiness.fault() is None)
    backend.gate, now[0] = threading.Event(), 6.0
    began = time.monotonic()
    assert readiness.fault() is None and time.monotonic() - began < 2.0  # the canary waits for longer
    assert eventually(lambda: len(backend.requests) == 2)
    assert 2.0 < backend.requests[1].deadline_s < 60
    backend.gate.set()
    assert eventually(lambda: not readiness._is_checking)


def test_a_canary_without_a_right_answer_asks_for_two_tokens_and_others_for_little_more_than_theirs(
    build: Path, backend: FakeBackend
) -> None:
    service = ChatService(GatewaySettings(build=build), backend)
    canary = Canary.read(build)
    assert canary_question(replace(canary, answer=None), service.tokenizer).sampling.max_tokens == 2
    least = len(service.tokenizer.encode_plain(canary.answer or ""))
    assert least < canary_question(canary, service.tokenizer).sampling.max_tokens <= 64
    assert canary_question(replace(canary, answer="A " * 500), service.tokenizer).sampling.max_tokens == 64


def test_a_canary_that_waits_in_vain_while_others_are_answered_leaves_a_busy_service_ready(
    build: Path, says: Script
) -> None:
    backend, now = FakeBackend(says()), [0.0]
    service = ChatService(GatewaySettings(build=build), backend)
    readiness = Readiness(service, backend, Canary.read(build), 0.2, 5.0, lambda: now[0])
    assert readiness.fault() is None
    backend.gate = threading.Event()
    now[0] = 6.0
    with ThreadPoolExecutor(1) as pool:
        finding = pool.submit(readiness.fault)
        assert eventually(lambda: len(backend.requests) == 2)
        service.heard.note()  # another answer goes on
        assert finding.result(timeout=10) is None
        now[0] = 120.0
        finding = pool.submit(readiness.fault)
        assert eventually(lambda: len(backend.requests) == 3)
        service.heard.note()
        assert "deadline_exceeded" in str(finding.result(timeout=10))  # nothing excuses it for good


def test_an_answer_of_another_is_heard_and_a_probes_is_not(build: Path, says: Script) -> None:
    backend = FakeBackend(says())
    service = ChatService(GatewaySettings(build=build), backend)
    question = canary_question(Canary.read(build), service.tokenizer)
    for is_probe in (True, False):
        deadline, cancellation = Deadline.after(5), Cancellation()
        prepared = service.prepare(question, deadline, cancellation)
        service.answer(prepared, RequestContext("r", deadline, cancellation, is_probe=is_probe))
        assert (service.heard_at_s > 0) is not is_probe


def test_a_jammed_image_decoder_is_not_ready(build: Path, backend: FakeBackend) -> None:
    service = ChatService(GatewaySettings(build=build, image_decoders=1), backend)
    readiness = Readiness(service, backend, Canary.read(build), 0.1, 5.0)
    with service._image_decoders.admit(1, Deadline.after(60), Cancellation()):
        assert readiness.fault() == "No image decoder was free within 0.1 s."
    assert not backend.requests


def test_a_finding_holds_for_a_few_seconds_and_no_longer(build: Path, backend: FakeBackend) -> None:
    now = [0.0]
    readiness = readiness_of(build, backend, clock=lambda: now[0])
    assert readiness.fault() is None
    backend.is_ready = False
    now[0] = 4.9
    assert readiness.fault() is None
    now[0] = 5.1
    assert readiness.fault() == "The models are not loaded."


def test_a_good_finding_is_dropped_at_once_when_the_last_triton_has_died(build: Path, backend: FakeBackend) -> None:
    readiness = readiness_of(build, backend)
    assert readiness.fault() is None
    backend.up = 0
    assert readiness.fault() == "No Triton is up."
    backend.up = 1
    assert readiness.fault() is None


def test_many_who_ask_at_once_share_one_canary(build: Path, says: Script) -> None:
    backend = FakeBackend(says(), gate=threading.Event())
    readiness = readiness_of(build, backend)
    with ThreadPoolExecutor(8) as pool:
        findings = [pool.submit(readiness.fault) for _ in range(8)]
        assert backend.gate is not None
        backend.gate.set()
        assert [finding.result(timeout=10) for finding in findings] == [None] * 8
    assert len(backend.requests) == 1


def test_any_answer_will_do_where_the_right_one_is_unknown(build: Path, backend: FakeBackend, says: Script) -> None:
    canary = replace(Canary.read(build), answer=None)
    backend.chunks = says("Whatever.", Finish.LENGTH)
    service = ChatService(GatewaySettings(build=build), backend)
    assert Readiness(service, backend, canary, 5.0, 5.0).fault() is None


def test_a_build_without_a_canary_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(BadArtifact):
        Canary.read(tmp_path)


def test_the_canarys_answer_tells_how_fast_the_engine_is(build: Path, says: Script) -> None:
    backend, heard = FakeBackend(says()), list[tuple[float, float]]()
    *before, last = backend.chunks
    backend.chunks = [*before, replace(last, timings_ms=(5.0, 7000.0, 52_000.0, 2000.0))]
    tokens = sum(len(chunk.tokens) for chunk in backend.chunks)
    service = ChatService(GatewaySettings(build=build), backend)
    canary = Canary.read(build)
    told = Readiness(service, backend, canary, 5.0, 5.0, on_pace=lambda *pace: heard.append(pace))
    assert told.fault() is None
    assert heard == [(pytest.approx(2.0 / tokens), pytest.approx(59.0))]
