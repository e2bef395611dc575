"""Live means the process answers; ready means a picture really went through."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from fake_backend import FakeBackend
from flask.testing import FlaskClient

from gateway.app import create_app
from gateway.chat.readiness import Readiness
from gateway.chat.service import ChatService
from gateway.settings import GatewaySettings
from gateway.triton.backend import Chunk
from glmserve.build.canary import Canary
from glmserve.build.manifest import Manifest
from glmserve.contract import Finish
from glmserve.errors import BackendDown, BadArtifact, Overloaded

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


def test_not_ready_when_the_canary_takes_too_long(build: Path, says: Script) -> None:
    backend = FakeBackend(says(), gate=threading.Event())
    client = create_app(GatewaySettings(build=build, canary_timeout_s=0.05), backend).test_client()
    assert_not_ready(client, "deadline_exceeded")


def test_a_finding_holds_for_a_few_seconds_and_no_longer(build: Path, backend: FakeBackend) -> None:
    now = [0.0]
    readiness = readiness_of(build, backend, clock=lambda: now[0])
    assert readiness.fault() is None
    backend.is_ready = False
    now[0] = 4.9
    assert readiness.fault() is None
    now[0] = 5.1
    assert readiness.fault() == "The models are not loaded."


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
