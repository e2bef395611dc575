"""What one caller's body costs stays off the threads, and off Python's lock, that others wait for."""

from __future__ import annotations

import gzip
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import brotli
import numpy as np
import pytest
from costly_bodies import KINDS
from cpu_time import takes_less_than
from eventually import eventually
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from samples import OPENAI_URL
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from gateway.api.body_reader import BodyReader
from gateway.chat.service import ChatService
from gateway.deadline import Deadline
from gateway.reading.dear import SMALL_BYTES
from gateway.reading.dear_reader import DearReader
from gateway.resources import BODIES, DEAR
from gateway.schemas.conversation import Conversation, Turn
from gateway.settings import GatewaySettings
from glmserve.build.manifest import CHECKPOINT_FOLDER
from glmserve.errors import DeadlineExceeded, PromptTooLong
from glmserve.limits import DEADLINE_S
from glmserve.model.chat_template import Message, PromptBuilder, ToolCall
from glmserve.model.tokenizer import Tokenizer
from glmserve.sampling_parameters import Sampling

MOST_CPU_S = 0.25
"""Of a request's own thread: what is dear is computed in another process, or without Python's lock."""
COUNTED = ("a text to count",)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in COUNTED])
def test_no_request_keeps_its_thread_busy(kind: str, client: FlaskClient) -> None:
    made = KINDS[kind]()

    def is_answered() -> None:
        response = client.post(made.path, data=made.body, headers=made.headers)
        assert response.status_code in (200, 400, 413)
        assert response.status_code == 200 or len(response.data) < 4000, "a refusal repeats what was sent"

    assert takes_less_than(MOST_CPU_S, is_answered)


@pytest.mark.slow
def test_a_text_is_counted_to_its_end_and_its_tokens_are_written_at_once(client: FlaskClient) -> None:
    text = "龘 " * 60_000
    whole = client.post("/v1/tokenize", json={"prompt": text, "return_token_strs": True}).get_json()
    assert whole["count"] == len(whole["tokens"]) == len(whole["token_strs"]) > 100_000
    asked = {"prompt": text, "with_pieces": True, "return_token_strs": True}
    assert takes_less_than(2 * MOST_CPU_S, lambda: client.post("/v1/tokenize", json=asked))


@pytest.fixture
def builder(build: Path, tokenizer: Tokenizer) -> PromptBuilder:
    image = tokenizer.control_tokens["<|image|>"]
    return PromptBuilder.read(build / CHECKPOINT_FOLDER, tokenizer, image, 2)


class Steps:
    """A thread that counts how often it gets Python's lock."""

    def __enter__(self) -> Steps:
        self.count, self._ends = 0, False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends = True
        self._thread.join()

    def _run(self) -> None:
        while not self._ends:
            time.sleep(0.0002)
            self.count += 1


@pytest.mark.parametrize("text", ["The quick brown fox. " * 9_000, "龘" * 190_000])
def test_other_threads_go_on_while_a_long_text_becomes_tokens_and_text_again(text: str, tokenizer: Tokenizer) -> None:
    with Steps() as steps:
        before = steps.count
        ids = tokenizer.encode(text)
        encoded = steps.count
        tokenizer.decode(ids)
        decoded = steps.count
    assert encoded - before > 5 and decoded - encoded > 2


def test_a_text_far_over_the_context_is_refused_before_it_is_counted_to_its_end(
    builder: PromptBuilder, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    encode, plain = tokenizer.encode, tokenizer.encode_plain

    def noting(encode: Callable[[str], list[int]]) -> Callable[[str], list[int]]:
        def encoded(text: str) -> list[int]:
            counted.append(len(text))
            return encode(text)

        return encoded

    monkeypatch.setattr(tokenizer, "encode", noting(encode))
    monkeypatch.setattr(tokenizer, "encode_plain", noting(plain))
    for text in ("word " * 38_000, "<|user|>" * 24_000, "龘" * 190_000):
        counted.clear()
        with pytest.raises(PromptTooLong, match="more than 1000 tokens"):
            builder.build([Message("user", (text,))], [], None, most_tokens=1000)
        assert sum(counted) < 0.2 * len(text)


def test_a_text_of_few_tokens_is_answered_however_many_characters_it_has(builder: PromptBuilder) -> None:
    text = " " * 100_000
    whole = builder.build([Message("user", (text,))], [], None)
    bounded = builder.build([Message("user", (text,))], [], None, most_tokens=len(whole))
    assert (whole == bounded).all()


def test_the_sentence_names_more_than_the_context_where_nobody_counted_on(client: FlaskClient) -> None:
    body = {"messages": [{"role": "user", "content": "word " * 39_000}]}
    said = client.post(OPENAI_URL, json=body).get_json()["error"]["message"]
    assert said.startswith("The prompt and its images need more than ") and "must fit in" in said


def test_among_very_many_unknown_fields_five_are_told_and_the_rest_counted(client: FlaskClient) -> None:
    asked = {"messages": [{"role": "user", "content": "Hi"}], **{f"temperatur{i}": 1 for i in range(50_000)}}
    began = time.monotonic()
    response = client.post(OPENAI_URL, data=json.dumps(asked), content_type="application/json")
    assert response.status_code == 200
    assert "and 49995 more" in response.headers["Warning"]
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("kind", ["JSON of blanks", "base64 with blanks", "a zip bomb of blanks"])
def test_who_waits_for_a_turn_gives_up_when_its_client_does(kind: str, client: FlaskClient) -> None:
    made = KINDS[kind]()
    body = gzip.compress(os.urandom(100_000)) if "zip" in kind else made.body
    with client.application.extensions[DEAR].turns.take("another", Deadline.after(60.0)):
        began = time.monotonic()
        response = client.post(made.path, data=body, headers=made.headers | {"X-Request-Timeout": "0.2"})
        assert time.monotonic() - began < 10
    assert response.status_code == 504


def test_the_time_in_which_a_body_waits_to_be_read_is_gone_for_its_answer(
    client: FlaskClient, backend: FakeBackend
) -> None:
    """A deadline for each stage would keep a client several times as long as it said."""
    bodies = client.application.extensions[BODIES]
    asked = {"messages": [{"role": "user", "content": "Hi."}], "user": "a" * SMALL_BYTES}
    with ThreadPoolExecutor(1) as pool:
        with bodies._turns.take("another", Deadline.after(60.0)):
            answer = pool.submit(client.post, OPENAI_URL, json=asked)
            assert eventually(lambda: bool(bodies._turns._waiting))
            time.sleep(1.0)
        assert answer.result(60).status_code == 200
    assert backend.requests[0].deadline_s < DEADLINE_S - 1.0


@pytest.mark.parametrize(
    ("body", "most_at_once"),
    [(b"A" * (SMALL_BYTES + 1), 1), (b"A" * SMALL_BYTES, 4), (b'"a":1,' * 10_000, 1), (b'"a":1,' * 1000, 4)],
    ids=["large", "small", "small of many values", "tiny"],
)
def test_of_bodies_that_take_more_than_a_moment_one_is_read_at_a_time(body: bytes, most_at_once: int) -> None:
    """Threads that compute at the same time keep the processors from everybody who asks for little."""
    lock, reading, seen = threading.Lock(), set[int](), list[int]()

    def read(body: bytes) -> int:
        with lock:
            reading.add(threading.get_ident())
            seen.append(len(reading))
        time.sleep(0.2)
        with lock:
            reading.discard(threading.get_ident())
        return len(body)

    callers = iter(["one", "two", "three", "four"])
    with closing(DearReader(60.0)) as dear, ThreadPoolExecutor(4) as pool:
        bodies = BodyReader(2 << 20, 2 << 20, 60.0, lambda: next(callers), dear)
        asked = [Request(EnvironBuilder(method="POST", data=body).get_environ()) for _ in range(4)]
        assert list(pool.map(lambda request: bodies.read_as(request, read), asked)) == [len(body)] * 4
        bodies.close()
    assert max(seen) == most_at_once


@pytest.mark.parametrize("encoding", ["gzip", "br"])
def test_what_is_small_while_it_is_compressed_is_unpacked_in_its_callers_turn(
    encoding: str, client: FlaskClient
) -> None:
    """Fifty bytes may become fifteen megabytes."""
    body = {"gzip": gzip.compress, "br": brotli.compress}[encoding](b'{"messages":1}')
    headers = {"Content-Encoding": encoding, "Content-Type": "application/json", "X-Request-Timeout": "0.2"}
    with client.application.extensions[BODIES]._turns.take("another", Deadline.after(60.0)):
        assert client.post(OPENAI_URL, data=body, headers=headers).status_code == 504
    assert client.post(OPENAI_URL, data=body, headers=headers).status_code == 400


def test_many_ids_become_text_in_their_callers_turn(settings: GatewaySettings) -> None:
    """A text of a hundred thousand tokens takes a processor for tens of milliseconds; a few tokens wait for nobody."""
    service, many = ChatService(settings, FakeBackend()), np.full(20_000, 300)
    with service._turns.take("somebody else", Deadline.after(60)):
        with pytest.raises(DeadlineExceeded):
            service.text_of(many, Deadline.after(0.1), "me")
        assert service.text_of(many[:20], Deadline.after(0.1), "me")
    assert len(service.text_of(many, Deadline.after(60), "me")) >= len(many)


@pytest.mark.parametrize("turn", [Turn("user", ("a",)), Turn("assistant", (), None, (ToolCall("a", {}),) * 3)])
def test_many_short_turns_become_tokens_in_their_callers_turn(turn: Turn, settings: GatewaySettings) -> None:
    """The template takes ten milliseconds for 512 of them, however short they are; a few wait for nobody."""
    service = ChatService(settings, FakeBackend())
    many, few = (Conversation((turn,) * count, Sampling()) for count in (512, 20))
    with service._turns.take("somebody else", Deadline.after(60)):
        with pytest.raises(DeadlineExceeded):
            service.count(many, Deadline.after(0.1), "me")
        assert service.count(few, Deadline.after(30), "me")
    assert service.count(many, Deadline.after(60), "me")


def test_of_rare_characters_few_are_counted_until_they_are_too_many(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    encode = tokenizer.encode
    monkeypatch.setattr(tokenizer, "encode", lambda text: (counted.append(len(text)), encode(text))[1])
    assert tokenizer.is_far_longer("\u9f98" * 200_000, 4000)
    assert sum(counted) <= 4096
