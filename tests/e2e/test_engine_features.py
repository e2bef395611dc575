"""What the engine can do, asked of a real Triton: caches, log-probabilities, penalties, grammars, frozen clients."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import Service, metric, triton_on

from demo.golden_set import MOST_TOKENS, drawn_image, golden_questions
from export.verify.candidate import Candidate
from export.verify.cases import Case, input_ids
from gateway.triton.backend import Chunk, GenerateRequest
from gateway.triton.grpc_client import TritonBackend
from glmserve.answer_rules import AnswerRules, TextRule
from glmserve.engine.metrics import ALL_METRICS
from glmserve.errors import InvalidInput
from glmserve.model.chat_template import ImagePart, Message, PromptBuilder
from glmserve.model.config import Checkpoint
from glmserve.model.image_processor import patches_of
from glmserve.model.tokenizer import Tokenizer
from glmserve.sampling_parameters import Sampling
from launcher.triton_server import TritonServer

pytestmark = pytest.mark.triton
DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
SETTLE_S = 0.7
SEEN = [q for q in golden_questions() if q.has_image]
TOKENIZER, CHECKPOINT = Tokenizer.read(DEMO), Checkpoint.read(DEMO)
PROMPTS = PromptBuilder.read(DEMO, TOKENIZER, CHECKPOINT.image_token_id, CHECKPOINT.vision.merge_size)
FROZEN_WITHIN_S = 20.0


@pytest.fixture(scope="module")
def backend(service: Service) -> Iterator[TritonBackend]:
    with closing(TritonBackend(service.triton.grpc_url, 10.0)) as made:
        yield made


def asked(
    seed: int, question: str, grammar: bytes = b"", cache_scope: int = 0, max_tokens: int = 48, **sampled: Any
) -> GenerateRequest:
    patches, grid = patches_of(drawn_image(seed), CHECKPOINT.images)
    ids = PROMPTS.build([Message("user", (ImagePart(), question))], [grid], False)
    sampling = Sampling(max_tokens=max_tokens, **sampled)
    return GenerateRequest("r", ids, patches, (grid,), sampling, 30.0, grammar=grammar, cache_scope=cache_scope)


def tokens_of(chunks: list[Chunk]) -> list[int]:
    return [token for chunk in chunks for token in chunk.tokens]


def test_a_follow_up_takes_image_and_prompt_over_and_says_the_same(service: Service, backend: TritonBackend) -> None:
    first = list(backend.generate(asked(9001, "How many shapes are there?")))
    hits = _settled(service, "glm_image_cache_hits_total")
    again = list(backend.generate(asked(9001, "How many shapes are there?")))
    other = list(backend.generate(asked(9001, "What is in the picture?")))
    image_tokens = asked(9001, "?").grids[0].tokens(CHECKPOINT.images.merge_size)
    assert first[-1].cached_tokens < image_tokens <= other[-1].cached_tokens <= again[-1].cached_tokens
    assert tokens_of(again) == tokens_of(first) and tokens_of(other)
    _wait_until(lambda: metric(service.triton, "glm_image_cache_hits_total") == hits + 2)


def test_another_scope_shares_nothing(backend: TritonBackend) -> None:
    list(backend.generate(asked(9002, "What is in the picture?", cache_scope=1)))
    assert list(backend.generate(asked(9002, "What is in the picture?", cache_scope=2)))[-1].cached_tokens == 0
    assert list(backend.generate(asked(9002, "What is in the picture?", cache_scope=1)))[-1].cached_tokens > 0


def test_answers_from_warm_rows_are_the_golden_ones(service: Service, backend: TritonBackend) -> None:
    for question in SEEN[::8]:
        if question.thinking:
            continue
        for _ in range(2):
            request = asked(question.seed, question.question, max_tokens=MOST_TOKENS)
            assert tokens_of(list(backend.generate(request))) == question.answer_ids


def test_log_probabilities_come_with_every_token_and_agree_with_the_choice(backend: TritonBackend) -> None:
    chunks = list(backend.generate(asked(9003, "Describe the picture.", logprobs=True, top_logprobs=3)))
    ranked = [entry for chunk in chunks for entry in chunk.logprobs]
    assert len(ranked) == len(tokens_of(chunks)) > 3
    for token, entry in zip(tokens_of(chunks), ranked, strict=True):
        (chosen, value), (best, highest), *_ = entry
        assert chosen == best == token and value == pytest.approx(highest)  # greedy: the chosen one is the likeliest
        assert np.exp([value for _, value in entry[1:]]).sum() <= 1.0001


def test_a_repetition_penalty_gives_the_words_of_transformers(backend: TritonBackend, demo_build: Path) -> None:
    pytest.importorskip("torch")
    from export.verify.reference import Reference

    reference, candidate = Reference(DEMO), Candidate(demo_build, 1, 512)
    for question in SEEN[:40:8]:
        case = Case("", (Message("user", (ImagePart(), question.question)),), (drawn_image(question.seed),))
        wanted = reference.answer(input_ids(candidate, case), list(case.images), 24, repetition_penalty=1.3)
        found = backend.generate(asked(question.seed, question.question, repetition_penalty=1.3, max_tokens=24))
        assert tokens_of(list(found)) == [t for t in wanted if t not in CHECKPOINT.eos_token_ids]


def test_an_answer_matches_its_json_schema(backend: TritonBackend) -> None:
    schema = {
        "type": "object",
        "properties": {"count": {"type": "integer", "maximum": 9}, "kind": {"enum": ["circle", "square"]}},
        "required": ["count", "kind"],
        "additionalProperties": False,
    }
    grammar = AnswerRules(TextRule("json_schema", schema, "response_format")).packed()
    for temperature in (0.0, 1.0):
        request = asked(9004, "How many shapes are there?", grammar=grammar, temperature=temperature, max_tokens=200)
        answer = json.loads(TOKENIZER.decode(tokens_of(list(backend.generate(request)))))
        assert set(answer) == {"count", "kind"}


def test_a_schema_that_is_none_is_refused(backend: TritonBackend) -> None:
    with pytest.raises(InvalidInput, match="JSON Schema"):
        wrong = AnswerRules(TextRule("json_schema", {"type": 7}, "response_format")).packed()
        list(backend.generate(asked(9004, "?", grammar=wrong)))


def test_stop_ids_end_an_answer(backend: TritonBackend) -> None:
    whole = tokens_of(list(backend.generate(asked(9005, "Describe the picture."))))
    at = whole.index(whole[3])
    cut = tokens_of(list(backend.generate(asked(9005, "Describe the picture.", stop_token_ids=(whole[3],)))))
    assert cut == whole[:at]


def test_every_metric_is_shown(service: Service) -> None:
    with urllib.request.urlopen(service.triton.metrics_url, timeout=10) as reply:
        page = reply.read().decode()
    for each in ALL_METRICS:
        assert f"# TYPE {each.name} {each.kind}" in page, each.name
    assert "glm_time_to_first_token_seconds_bucket" in page and metric(service.triton, "glm_engine_healthy") == 1


def test_a_client_that_stops_reading_is_ended(demo_build: Path) -> None:
    """A stopped process keeps its connection open and answers nothing, not even a keepalive. Its Triton is no other
    test's: it cancels the call by itself, of which it may die once the client is gone (docs/architecture.md)."""
    with triton_on(demo_build) as triton, _client_of(triton) as client:
        assert client.stdout is not None and client.stdout.readline() == "token\n"
        os.kill(client.pid, signal.SIGSTOP)
        _wait_until(lambda: metric(triton, "glm_requests_running") == 0, FROZEN_WITHIN_S)


@contextmanager
def _client_of(triton: TritonServer) -> Iterator[subprocess.Popen[str]]:
    """A process that prints a line for each piece of endless answers."""
    code = (
        "import numpy as np, sys\n"
        "from gateway.triton.backend import GenerateRequest\n"
        "from gateway.triton.grpc_client import TritonBackend\n"
        "from glmserve.sampling_parameters import Sampling\n"
        f"backend = TritonBackend({triton.grpc_url!r}, 60.0)\n"
        "for n in range(10**6):\n"
        "    sampling = Sampling(max_tokens=4000, temperature=2.0, seed=n)\n"
        "    request = GenerateRequest('f', np.arange(5, 60), None, (), sampling, 120.0)\n"
        "    for chunk in backend.generate(request): print('token', flush=True)\n"
    )
    client = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        yield client
    finally:
        client.kill()
        client.communicate(timeout=10)


def _settled(service: Service, name: str) -> float:
    """A metric once it stands still: what requests before this one added comes a moment later."""
    value = -1.0
    while value != (newest := metric(service.triton, name)):
        value = newest
        time.sleep(SETTLE_S)
    return value


def _wait_until(happened, within_s: float = 5.0) -> None:  # type: ignore[no-untyped-def]
    give_up = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < give_up, "it did not happen in time"
        time.sleep(0.05)
