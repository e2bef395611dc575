"""What behaviours are tried on: a real service by HTTP, and one in this process whose model says a given text."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from behaviours.asking import Reply, Sender, Service
from fake_backend import FakeBackend
from serving import READY_S, gateway_on
from stand_in_build import write_stand_in

from gateway.app import create_app
from gateway.limits.api_keys import create_key
from gateway.resources import close_all
from gateway.settings import GatewaySettings
from gateway.triton.backend import Chunk
from glmserve.build.manifest import CHECKPOINT_FOLDER
from glmserve.contract import Finish
from glmserve.errors import GlmServeError
from glmserve.model.tokenizer import Tokenizer

ANSWER_S = 60.0


def sender(url: str) -> Sender:
    """Sends to a service that runs."""

    def send(method: str, path: str, body: Any, headers: dict[str, str]) -> Reply:
        request = urllib.request.Request(url + path, _encoded(body), headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as reply:
                return Reply(reply.status, reply.read().decode(), dict(reply.headers))
        except HTTPError as error:
            with error:
                return Reply(error.code, error.read().decode(), dict(error.headers))

    return send


@contextmanager
def saying(folder: Path) -> Iterator[Callable[..., Service]]:
    """Makes services in this process, on a build in an empty folder; their model says a text, token by token, and then
    ends or fails."""
    write_stand_in(folder, "What is in the picture?", None)
    tokenizer = Tokenizer.read(folder / CHECKPOINT_FOLDER)
    backend = FakeBackend()
    app = create_app(GatewaySettings(build=folder, exempt_loopback=True), backend)
    client = app.test_client()

    def send(method: str, path: str, body: Any, headers: dict[str, str]) -> Reply:
        with closing(client.open(path, method=method, data=_encoded(body), headers=headers)) as reply:
            return Reply(reply.status_code, reply.get_data(as_text=True), dict(reply.headers))

    def service(text: str, fails: bool = False) -> Service:
        backend.chunks = [Chunk((token,), Finish.RUNNING) for token in tokenizer.encode(text)]
        backend.chunks += [] if fails else [Chunk((), Finish.STOP)]
        backend.error = GlmServeError("The model failed.") if fails else None
        return Service(send, _no_keys, service)

    try:
        yield service
    finally:
        close_all(app)


@contextmanager
def with_keys(build: Path, triton_url: str, file: Path) -> Iterator[Callable[[], tuple[Service, str]]]:
    """A gateway behind a file of keys that is made for it."""
    key = create_key(file, "behaviours")
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:  # for that gateway only, not for those of this process
            patch.setenv("GLM_GATEWAY_KEYS_FILE", str(file))
            gateway = stack.enter_context(gateway_on(build, triton_url))
        gateway.wait_ready(READY_S)
        yield lambda: (Service(sender(gateway.url), _no_keys, _says_nothing), key)


def _encoded(body: Any) -> bytes | None:
    return body if body is None or isinstance(body, bytes) else json.dumps(body).encode()


def _no_keys() -> tuple[Service, str]:
    raise NotImplementedError


def _says_nothing(text: str, fails: bool = False) -> Service:
    raise NotImplementedError
