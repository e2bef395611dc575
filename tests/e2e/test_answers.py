"""Through HTTP, gateway and Triton come the very words that transformers generates."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from serving import Service

from demo.golden_set import MOST_TOKENS, GoldenQuestion, drawn_image, golden_questions, plain
from gateway.triton.backend import GenerateRequest
from gateway.triton.grpc_client import TritonBackend
from glmserve.model.chat_template import Message, PromptBuilder
from glmserve.model.config import Checkpoint
from glmserve.model.tokenizer import Tokenizer
from glmserve.sampling_parameters import Sampling

pytestmark = pytest.mark.triton
SEEN = [q for q in golden_questions() if q.has_image]
GREETINGS = [q for q in golden_questions() if not q.has_image]
DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"


def _ask(service: Service, question: GoldenQuestion) -> dict:
    options = {"temperature": 0, "thinking": question.thinking, "max_tokens": MOST_TOKENS}
    return service.ask(drawn_image(question.seed), question.question, **options)


def test_200_of_200_golden_questions_get_the_words_of_transformers(service: Service) -> None:
    assert len(SEEN) >= 200
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda q: _ask(service, q), SEEN))
    wrong = [
        (q.id, answer["result"], plain(q.answer))
        for q, answer in zip(SEEN, answers, strict=True)
        if answer["result"] != plain(q.answer)
    ]
    assert not wrong
    for question, answer in zip(SEEN, answers, strict=True):
        assert answer["success"] is True and answer["model"] == "GLM-4.6V-Flash-WEB"
        assert answer["finish_reason"] == "stop"
        assert answer["usage"]["completion_tokens"] == len(question.answer_ids)
        assert ("thinking" in answer) == ("<think>" in question.answer and question.thinking)
        assert not any(mark in answer["result"] for mark in ("<think>", "</think>", "<|"))


def test_greetings_without_an_image_get_the_words_of_transformers(service: Service) -> None:
    tokenizer, checkpoint = Tokenizer.read(DEMO), Checkpoint.read(DEMO)
    prompts = PromptBuilder.read(DEMO, tokenizer, checkpoint.image_token_id, checkpoint.vision.merge_size)
    backend = TritonBackend(service.triton.grpc_url, 10.0)
    assert len(GREETINGS) >= 10
    with closing(backend):
        for greeting in GREETINGS:
            ids = prompts.build([Message("user", (greeting.question,))], [], greeting.thinking)
            request = GenerateRequest("greeting", ids, None, (), Sampling(max_tokens=MOST_TOKENS), 30.0)
            tokens = [token for chunk in backend.generate(request) for token in chunk.tokens]
            assert tokenizer.decode(tokens) == greeting.answer


def test_16_requests_at_once_are_all_right_and_share_steps(service: Service) -> None:
    """On a busy machine an answer may be over before the next client has asked: so there are some tries."""
    longest = sorted(SEEN, key=lambda q: len(q.answer_ids))[-16:]
    names = ("glm_decode_steps_total", "glm_decoded_rows_total", "glm_accepted_tokens_total")

    def share() -> float:
        _wait_until_idle(service)
        before = [service.metric(name) for name in names]
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda q: _ask(service, q)["result"], longest))
        assert answers == [plain(q.answer) for q in longest]
        _wait_until_idle(service)
        steps, rows, guessed = (service.metric(name) - value for name, value in zip(names, before, strict=True))
        assert rows + guessed == sum(len(q.answer_ids) for q in longest)
        return steps / rows

    assert any(share() < 0.5 for _ in range(20))


def test_a_recorded_answer_is_still_what_transformers_says() -> None:
    """The golden file is not stale: a part of it is generated again."""
    pytest.importorskip("torch")
    from export.verify.reference import Reference
    from glmserve.model.image_processor import patches_of

    reference, checkpoint, tokenizer = Reference(DEMO), Checkpoint.read(DEMO), Tokenizer.read(DEMO)
    prompts = PromptBuilder.read(DEMO, tokenizer, checkpoint.image_token_id, checkpoint.vision.merge_size)
    from glmserve.model.chat_template import ImagePart

    for question in SEEN[::10]:
        image = drawn_image(question.seed)
        _, grid = patches_of(image, checkpoint.images)
        ids = prompts.build([Message("user", (ImagePart(), question.question))], [grid], question.thinking)
        tokens = reference.answer(ids, [image], MOST_TOKENS)
        assert [t for t in tokens if t not in checkpoint.eos_token_ids] == question.answer_ids


def _wait_until_idle(service: Service) -> None:
    """Until the engine has published its last counters, which it does when it turns idle."""
    seen = -1.0
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        rows = service.metric("glm_decoded_rows_total")
        if rows == seen and not service.metric("glm_requests_running"):
            return
        seen = rows
        time.sleep(0.5)
