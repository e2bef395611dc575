"""The demo behind a gateway that speaks plain HTTP to Triton: the same answers, a stream in one piece."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from eventually import eventually
from serving import READY_S, Service, gateway_on, metric, png

from demo.golden_set import MOST_TOKENS, drawn_image, golden_questions
from gateway.triton.backend import Cancellation, GenerateRequest
from gateway.triton.grpc_client import TritonBackend
from gateway.triton.http_client import TritonHttpBackend
from glmserve.contract import Finish
from glmserve.errors import GlmServeError
from glmserve.sampling_parameters import Sampling
from launcher.triton_server import TritonServer

pytestmark = pytest.mark.triton
QUESTIONS = [question for question in golden_questions() if question.has_image][:4]
LEFT_S = 4.0
GREEDY = {"temperature": 0, "max_tokens": MOST_TOKENS}


@pytest.fixture(scope="module")
def over_http(service: Service, demo_build: Path) -> Iterator[Service]:
    with gateway_on(demo_build, service.triton.http_url) as gateway:
        gateway.wait_ready(READY_S)
        yield Service(service.triton, gateway)


def test_it_says_what_it_says_over_grpc(service: Service, over_http: Service) -> None:
    for question in QUESTIONS:
        image = png(drawn_image(question.seed))
        wanted, found = (one.ask(image, question.question, **GREEDY) for one in (service, over_http))
        assert (found["result"], found["usage"], found["finish_reason"]) == (
            wanted["result"],
            wanted["usage"],
            wanted["finish_reason"],
        )
        assert found["timings"]["decode_ms"] >= 0


def test_log_probabilities_and_a_schema_travel_too(service: Service, over_http: Service) -> None:
    image = png(drawn_image(QUESTIONS[0].seed))
    options = {"logprobs": True, "top_logprobs": 3, "max_tokens": 6, "temperature": 0}
    wanted, found = (one.ask(image, QUESTIONS[0].question, **options)["logprobs"] for one in (service, over_http))
    assert [[t["token"] for t in entry["top_logprobs"]] for entry in found["content"]] == [
        [t["token"] for t in entry["top_logprobs"]] for entry in wanted["content"]
    ]
    answer = over_http.ask(image, "?", response_format={"type": "json_object"}, **GREEDY)["result"]
    assert answer.startswith("{")


def test_a_stream_is_one_piece_and_the_end(over_http: Service) -> None:
    body = {"messages": [{"role": "user", "content": "How many shapes are there?"}], "stream": True, **GREEDY}
    address = f"{over_http.gateway.url}/v1/chat/completions"
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        events = [line[6:] for line in reply.read().decode().split("\n\n") if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"].get("content") for event in events]
    assert len([delta for delta in deltas if delta]) <= 2  # one, and what was held back at the end


def test_several_answers_come_in_one_piece(service: Service, over_http: Service) -> None:
    """Biases and banned words travel with them."""
    body = {
        "messages": [{"role": "user", "content": "How many shapes are there?"}],
        "n": 3,
        "seed": 5,
        "temperature": 1,
        "max_tokens": 12,
        "logit_bias": {"300": 1.5},
        "bad_words": ["circle", "two blue"],
        "logprobs": True,
    }
    choices = []
    for one in (service, over_http):
        address = f"{one.gateway.url}/v1/chat/completions"
        request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            choices.append(json.load(reply)["choices"])
    wanted, found = ([choice["message"]["content"] for choice in each] for each in choices)
    assert wanted == found and len(found) == 3
    assert all(choice["logprobs"]["content"] for each in choices for choice in each)


def test_a_place_is_asked_for_over_either_transport(service: Service) -> None:
    """The real engine understands a request that wants no answer, and is done with it at once."""
    triton = service.triton
    for backend in (TritonBackend(triton.grpc_url, 10.0), TritonHttpBackend(triton.http_url)):
        with closing(backend):
            asked = GenerateRequest("place", np.zeros(9, np.int64), None, (), Sampling(max_tokens=9), 30.0, answers=-2)
            *others, last = backend.generate(asked)
            assert not others and last.finish == Finish.STOP and not last.tokens
    assert eventually(lambda: all(metric(triton, f"glm_requests_{where}") == 0 for where in ("waiting", "running")))


@pytest.mark.parametrize("clients", [1, 60], ids=["alone", "in a crowd that takes every place"])
def test_who_gives_up_frees_the_engine_at_once(endless: TritonServer, clients: int) -> None:
    """A closed connection tells Triton nothing; the answers would go on to their deadline."""
    cancellations = [Cancellation() for _ in range(clients)]

    def ask(cancellation: Cancellation) -> str:
        request = GenerateRequest(
            "long", np.arange(5, 60), None, (), Sampling(max_tokens=4000, seed=1), 60.0, cancellation=cancellation
        )
        try:
            list(backend.generate(request))
        except GlmServeError as error:
            return error.code
        return "complete"

    with closing(TritonHttpBackend(endless.http_url)) as backend, ThreadPoolExecutor(clients) as crowd:
        ends = [crowd.submit(ask, cancellation) for cancellation in cancellations]
        assert eventually(lambda: metric(endless, "glm_requests_running") > 0)
        time.sleep(0.3)  # so that the others wait
        began = time.monotonic()
        for cancellation in cancellations:
            cancellation.cancel()
        assert {end.result() for end in ends} <= {"cancelled", "overloaded"}
        assert time.monotonic() - began < 2.0
        nobody = ("glm_requests_running", "glm_requests_waiting")
        assert eventually(lambda: all(metric(endless, name) == 0 for name in nobody), 5.0)


def test_answers_that_run_out_of_time_give_their_places_back(endless: TritonServer) -> None:
    """More of them than `glm4v_whole` has places, each with tokens already, which an error follows."""

    def ask(number: int) -> str:
        request = GenerateRequest("late", np.arange(5, 60), None, (), Sampling(max_tokens=4000, seed=number), 0.7)
        try:
            list(backend.generate(request))
        except GlmServeError as error:
            return error.code
        return "complete"

    with closing(TritonHttpBackend(endless.http_url)) as backend, ThreadPoolExecutor(16) as crowd:
        assert set(crowd.map(ask, range(100))) <= {"deadline_exceeded", "overloaded"}
        began = time.monotonic()
        assert ask(0) == "deadline_exceeded"
        assert time.monotonic() - began < 0.7 + 1.0, "the engine's error did not come"


def test_what_a_killed_gateway_had_asked_for_ends_with_its_deadline(endless: TritonServer) -> None:
    """Nobody is left to cancel it, and Triton does not notice that its client is gone."""
    code = (
        "import numpy as np\n"
        "from gateway.triton.backend import GenerateRequest\n"
        "from gateway.triton.http_client import TritonHttpBackend\n"
        "from glmserve.sampling_parameters import Sampling\n"
        "sampling = Sampling(max_tokens=4000, temperature=2.0)  # an answer that nobody can guess ahead\n"
        f"request = GenerateRequest('left', np.arange(5, 60), None, (), sampling, {LEFT_S})\n"
        "print('asking', flush=True)\n"
        f"list(TritonHttpBackend({endless.http_url!r}).generate(request))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as client:
        try:
            assert client.stdout is not None and client.stdout.readline() == "asking\n"
            began = time.monotonic()
            assert eventually(lambda: metric(endless, "glm_requests_running") == 1)
        finally:
            client.kill()
    assert eventually(lambda: metric(endless, "glm_requests_running") == 0, LEFT_S + 10)
    assert time.monotonic() - began > LEFT_S / 2, "it ended sooner than docs/reliability.md says"
