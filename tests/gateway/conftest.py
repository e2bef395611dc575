"""A build folder without graphs, a fake backend, and a client: what every gateway test starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fake_backend import FakeBackend
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from samples import base64_of, file_of
from stand_in_build import write_stand_in
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

import gateway.app
import gateway.chat.service
from gateway.app import create_app
from gateway.chat.image_decoder import ImageSizeLimits, OpenedImage
from gateway.deadline import Deadline
from gateway.images.decoder_pool import DecoderPool
from gateway.reading.dear_reader import DearReader
from gateway.settings import GatewaySettings
from gateway.triton.backend import Cancellation, Chunk
from glmserve.build.manifest import CHECKPOINT_FOLDER
from glmserve.contract import Finish
from glmserve.model.tokenizer import Tokenizer

ANSWER = "A red circle."


class SentClient(FlaskClient):
    """Closes an answer that is no stream once it was read, as a server does that has sent it."""

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        response = super().open(*args, **kwargs)
        if response.mimetype != "text/event-stream":
            response.get_data()
            response.close()
        return response


class MatchedRule(Rule):
    """A route that is matched and never built: the code that would build its URL takes longest of an app's start."""

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        return lambda **_values: ("", "no route of the gateway builds a URL")


@pytest.fixture(autouse=True)
def quick_test_apps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Flask, "test_client_class", SentClient)
    monkeypatch.setattr(Flask, "url_rule_class", MatchedRule)


@pytest.fixture(scope="session")
def dear_reader() -> Iterator[DearReader]:
    """The process that reads dear bodies, which all tests share."""
    with closing(DearReader(60.0)) as reader:
        yield reader


@pytest.fixture(autouse=True)
def shared_dear_reader(monkeypatch: pytest.MonkeyPatch, dear_reader: DearReader) -> None:
    for module in (gateway.app, gateway.chat.service):
        monkeypatch.setattr(module, "DearReader", lambda _timeout_s: dear_reader)


@pytest.fixture(scope="session")
def decoders() -> Iterator[DecoderPool]:
    """Decoding processes that all tests share, of which one has started: some tests have no time to wait for it."""
    image = OpenedImage(file_of(Image.new("RGB", (32, 32))), ImageSizeLimits(1 << 20, 1 << 20, 1024, True))
    with closing(DecoderPool()) as pool:
        image.planes(pool, image.size, Deadline.after(60), Cancellation())
        yield pool


@pytest.fixture(autouse=True)
def shared_decoders(monkeypatch: pytest.MonkeyPatch, decoders: DecoderPool) -> None:
    """Applications have processes of their own; to start some for each test takes a tenth of a second."""
    monkeypatch.setattr(gateway.chat.service, "DecoderPool", lambda: decoders)


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build as far as the gateway looks at it: manifest, checkpoint files and canary."""
    folder = tmp_path_factory.mktemp("build")
    write_stand_in(folder, "What is in the picture?", ANSWER)
    return folder


@pytest.fixture(scope="session")
def tokenizer(build: Path) -> Tokenizer:
    return Tokenizer.read(build / CHECKPOINT_FOLDER)


@pytest.fixture
def says(tokenizer: Tokenizer) -> Callable[..., list[Chunk]]:
    """The script of an answer: its tokens one message each, then the end."""

    def script(text: str = ANSWER, finish: Finish = Finish.STOP) -> list[Chunk]:
        return [*(Chunk((token,), Finish.RUNNING) for token in tokenizer.encode(text)), Chunk((), finish)]

    return script


@pytest.fixture(scope="session")
def settings(build: Path) -> GatewaySettings:
    return GatewaySettings(build=build)


@pytest.fixture
def backend(says: Callable[..., list[Chunk]]) -> FakeBackend:
    return FakeBackend(says())


@pytest.fixture
def client(settings: GatewaySettings, backend: FakeBackend) -> FlaskClient:
    return create_app(settings, backend).test_client()


@pytest.fixture(scope="session")
def image() -> str:
    """A small PNG as base64."""
    return base64_of(Image.new("RGB", (120, 90), "blue"))
