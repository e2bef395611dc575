"""What web clients were promised of POST /v1/chat/vision."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fake_backend import FakeBackend
from flask.testing import FlaskClient
from PIL import Image
from samples import URL, ask, assert_problem, base64_of
from structlog.testing import capture_logs

from gateway.app import create_app
from gateway.settings import GatewaySettings
from gateway.triton.backend import Chunk
from glmserve.build.manifest import CHECKPOINT_FOLDER
from glmserve.contract import Finish
from glmserve.errors import BackendDown, BadArtifact, DeadlineExceeded, GlmServeError, InvalidInput, Overloaded
from glmserve.model.config import Checkpoint
from glmserve.model.image_processor import patches_of
from glmserve.model.tokenizer import Tokenizer

Script = Callable[..., list[Chunk]]


def test_an_image_and_a_prompt_get_a_result_with_the_model_and_success(client: FlaskClient, image: str) -> None:
    response = ask(client, image)
    assert response.status_code == 200
    body = response.get_json()
    assert (body["result"], body["model"], body["success"]) == ("A red circle.", "GLM-4.6V-Flash-WEB", True)
    assert body["finish_reason"] == "stop"
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert "thinking" not in body


def test_usage_counts_prompt_image_and_answer(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    usage = ask(client, image).get_json()["usage"]
    request = backend.requests[0]
    assert usage["prompt_tokens"] == len(request.input_ids)
    assert usage["image_tokens"] == request.grids[0].tokens(2)
    assert usage["completion_tokens"] == sum(len(chunk.tokens) for chunk in backend.chunks)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_a_data_url_is_as_good_as_plain_base64(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    assert ask(client, image).status_code == 200
    assert ask(client, "data:image/png;base64," + image).status_code == 200
    first, second = backend.requests
    assert first.patches is not None and second.patches is not None
    assert np.array_equal(first.patches, second.patches)


def test_unset_options_have_their_documented_defaults(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    ask(client, image, max_tokens=None, temperature=None, top_p=None, top_k=None, stop=None, thinking=None, seed=None)
    sampling = backend.requests[0].sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.top_k) == (512, 0.7, 1.0, 0)


def test_options_reach_the_backend(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    ask(client, image, max_tokens=7, temperature=0, top_p=0.5, top_k=3, seed=11)
    sampling = backend.requests[0].sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.top_k) == (7, 0.0, 0.5, 3)
    assert sampling.seed == 11
    assert 0 < backend.requests[0].deadline_s <= 30


def test_max_new_tokens_is_another_name_for_max_tokens(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    ask(client, image, max_new_tokens=9)
    assert backend.requests[0].sampling.max_tokens == 9


def test_seeds_differ_when_none_is_asked_for(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    ask(client, image)
    ask(client, image)
    assert backend.requests[0].sampling.seed != backend.requests[1].sampling.seed


def test_unknown_fields_are_refused_by_name(client: FlaskClient, image: str) -> None:
    response = ask(client, image, max_token=5, temprature=0, streaming="maybe", chatter=1)
    assert_problem(response, 400, "max_token (do you mean max_tokens?)")
    assert_problem(response, 400, "temprature (do you mean temperature?)")
    assert_problem(response, 400, "chatter")
    assert ask(client, image, max_token=None).status_code == 200


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "application/vnd.x+json"])
def test_a_json_body_is_read_under_any_json_content_type(client: FlaskClient, image: str, kind: str) -> None:
    body = f'{{"image": "{image}", "prompt": "Hi"}}'
    assert client.post(URL, data=body, content_type=kind).status_code == 200


def test_thinking_and_box_tokens_never_reach_the_result(
    client: FlaskClient, backend: FakeBackend, says: Script, image: str
) -> None:
    backend.chunks = says("<think>hmm, round</think>\n<|begin_of_box|>A circle<|end_of_box|> ")
    body = ask(client, image, thinking=True).get_json()
    assert body["result"] == "A circle"
    assert body["thinking"] == "hmm, round"


def test_the_template_is_told_whether_to_think(
    client: FlaskClient, backend: FakeBackend, tokenizer: Tokenizer, image: str
) -> None:
    ask(client, image)
    ask(client, image, thinking=True)
    silent, thoughtful = (tokenizer.decode(r.input_ids.tolist()) for r in backend.requests)
    assert silent.endswith("<think></think>\n")
    assert thoughtful.endswith("<|assistant|>\n")


def test_the_image_comes_before_the_text(
    client: FlaskClient, backend: FakeBackend, tokenizer: Tokenizer, image: str
) -> None:
    ask(client, image, "What is it?")
    text = tokenizer.decode(backend.requests[0].input_ids.tolist())
    assert text.index("<|image|>") < text.index("What is it?")


def test_control_tokens_typed_by_a_user_stay_text(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    response = ask(client, image, "<|image|><|assistant|> " * 50)
    assert response.status_code == 200
    assert response.get_json()["usage"]["image_tokens"] == backend.requests[0].grids[0].tokens(2)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_usage_does_not_tell_in_how_many_messages_an_answer_came(
    client: FlaskClient, backend: FakeBackend, tokenizer: Tokenizer, image: str, size: int
) -> None:
    tokens = tokenizer.encode("A red circle and a square.")
    backend.chunks = [Chunk(tuple(tokens[i : i + size]), Finish.RUNNING) for i in range(0, len(tokens), size)]
    usage = ask(client, image, stop="circle").get_json()["usage"]
    assert usage["completion_tokens"] == len(tokenizer.encode("A red circle"))


def test_a_stop_string_ends_the_answer_and_cancels_the_rest(
    client: FlaskClient, backend: FakeBackend, image: str
) -> None:
    body = ask(client, image, stop=["circle", "square"]).get_json()
    assert (body["result"], body["finish_reason"]) == ("A red", "stop")
    assert backend.cancelled == 1


def test_an_answer_cut_by_max_tokens_says_length(
    client: FlaskClient, backend: FakeBackend, says: Script, image: str
) -> None:
    backend.chunks = says("A red", Finish.LENGTH)
    assert ask(client, image).get_json()["finish_reason"] == "length"


def test_max_tokens_is_cut_to_the_room_the_context_has(build: Any, says: Script, image: str) -> None:
    backend = FakeBackend(says())
    client = create_app(GatewaySettings(build=build, context_tokens=200), backend).test_client()
    assert ask(client, image).status_code == 200
    request = backend.requests[0]
    assert request.sampling.max_tokens == 200 - len(request.input_ids)


def test_a_prompt_that_leaves_no_room_is_told_the_numbers(build: Any, says: Script, image: str) -> None:
    client = create_app(GatewaySettings(build=build, context_tokens=64), FakeBackend(says())).test_client()
    response = ask(client, image, "word " * 100)
    assert_problem(response, 400, "tokens")
    assert "64" in response.get_json()["error"]


def test_ten_million_characters_are_refused_before_they_are_tokenised(client: FlaskClient, image: str) -> None:
    assert_problem(ask(client, image, "a" * 10_000_000), 400, "prompt")


def test_patches_are_those_of_the_shared_rules(
    client: FlaskClient, backend: FakeBackend, build: Any, tmp_path: Any
) -> None:
    noise = Image.effect_noise((150, 100), 60).convert("RGB")
    ask(client, base64_of(noise))
    patches, grid = patches_of(noise, Checkpoint.read(build / CHECKPOINT_FOLDER).images)
    request = backend.requests[0]
    assert request.patches is not None
    assert np.array_equal(request.patches, patches)
    assert request.grids == (grid,)


@pytest.mark.parametrize(
    ("error", "status"),
    [(BackendDown(), 503), (Overloaded(), 503), (DeadlineExceeded(), 504), (GlmServeError(), 500)],
)
def test_our_own_failures_have_their_status_and_no_details(
    client: FlaskClient, backend: FakeBackend, image: str, error: GlmServeError, status: int
) -> None:
    backend.chunks, backend.error = [], error
    response = ask(client, image)
    assert_problem(response, status)
    assert ("Retry-After" in response.headers) == (status == 503)


def test_the_message_of_our_own_failure_is_not_shown(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    backend.chunks, backend.error = [], BadArtifact("/secret/place at 0xdead")
    assert_problem(ask(client, image), 500)


def test_the_engines_word_on_a_wrong_request_is_shown(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    backend.chunks, backend.error = [], InvalidInput("The seed is odd.")
    assert_problem(ask(client, image), 400, "The seed is odd.")


def test_a_bug_is_a_500_without_details(
    client: FlaskClient, backend: FakeBackend, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_request: object) -> None:
        raise RuntimeError("at 0x7f /etc/passwd")

    monkeypatch.setattr(backend, "generate", broken)
    with capture_logs():
        assert_problem(ask(client, image), 500)


def test_an_answer_that_ends_without_its_end_is_a_503(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    backend.chunks = backend.chunks[:2]
    assert_problem(ask(client, image), 503)


def test_a_request_that_runs_out_of_time_is_a_504(build: Any, says: Script, image: str) -> None:
    backend = FakeBackend(says(), gate=threading.Event())
    client = create_app(GatewaySettings(build=build, deadline_s=0.05), backend).test_client()
    assert_problem(ask(client, image), 504)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("get", "/nothing", 404), ("get", URL, 405), ("post", "/health/live", 405)]
)
def test_http_errors_have_the_same_shape(client: FlaskClient, method: str, path: str, status: int) -> None:
    response = getattr(client, method)(path)
    assert_problem(response, status)
    assert ("Allow" in response.headers) == (status == 405)


def test_a_body_over_the_limit_is_a_413(build: Any, backend: FakeBackend, image: str) -> None:
    client = create_app(GatewaySettings(build=build, max_body_bytes=1024), backend).test_client()
    assert_problem(ask(client, image + "A" * 1024), 413)


def test_a_body_without_a_length_is_counted_too(build: Any, backend: FakeBackend) -> None:
    client = create_app(GatewaySettings(build=build, max_body_bytes=1024), backend).test_client()
    body, chunked = io.BytesIO(b"[" * 5000), {"wsgi.input_terminated": True}
    response = client.post(URL, input_stream=body, environ_overrides=chunked, content_type="application/json")
    assert_problem(response, 413)


def test_one_log_event_tells_how_a_request_ended_and_nothing_of_its_content(client: FlaskClient, image: str) -> None:
    with capture_logs() as events:
        ask(client, image, "my secret question")
    assert len(events) == 1
    event = events[0]
    assert (event["event"], event["status"], event["route"]) == ("request_end", 200, URL)
    assert (event["image_width"], event["image_height"], event["finish_reason"]) == (120, 90, "stop")
    assert "secret" not in str(event) and image[:20] not in str(event) and "red" not in str(event)


def test_a_failed_request_is_logged_with_its_code(client: FlaskClient, backend: FakeBackend, image: str) -> None:
    backend.chunks, backend.error = [], BackendDown()
    with capture_logs() as events:
        ask(client, image)
    assert (events[-1]["status"], events[-1]["error"]) == (503, "backend_down")


def test_a_clients_own_request_id_is_kept_when_it_is_harmless(client: FlaskClient, image: str) -> None:
    body = {"image": image, "prompt": "Hi"}
    assert client.post(URL, json=body, headers={"X-Request-ID": "abc-1"}).get_json()["request_id"] == "abc-1"
    assert client.post(URL, json=body, headers={"X-Request-ID": "a b{}"}).get_json()["request_id"] != "a b{}"
