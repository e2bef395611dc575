"""Steps of the real decoder that share their run, or are padded, give what each gives alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.verify.candidate import Candidate
from export.verify.cases import Case, input_ids, synthetic_image
from glmserve.build.manifest import decoder_in
from glmserve.engine.request import Prompt, Request, Sequence
from glmserve.engine.runtime.ort_decoder import OrtDecoder
from glmserve.engine.scheduler.kv_slots import SlotTable
from glmserve.engine.scheduler.scheduler import Chunk
from glmserve.engine.speculative.proposer import Draft
from glmserve.engine.step_builder import step_of
from glmserve.model.chat_template import ImagePart, Message
from glmserve.model.config import Checkpoint
from glmserve.sampling_parameters import Sampling

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
ROWS, CONTEXT = 6, 512


@pytest.fixture(scope="module")
def candidate(demo_build: Path) -> Candidate:
    return Candidate(demo_build, ROWS, CONTEXT)


@pytest.fixture(scope="module")
def prompts(candidate: Candidate) -> list[Prompt]:
    """Text and images of several lengths."""
    images = [synthetic_image(112, 112, 1), synthetic_image(200, 90, 2)]
    cases = [Case("", (Message("user", (ImagePart(), "What is this?")),), (image,)) for image in images]
    cases += [Case("", (Message("user", (text,)),)) for text in ("Hi", "How many red circles do you see? 你好")]
    return [candidate.prompt(input_ids(candidate, case), list(case.images)) for case in cases]


def read(decoder: OrtDecoder, table: SlotTable, requests: list[Sequence]) -> None:
    """Reads each prompt by itself and draws its first token."""
    for request in requests:
        table.start(request)
        sampled = decoder.run(step_of([], [Chunk(request, 0, request.request.prompt.length)], table, decoder))
        request.length = request.request.prompt.length
        table.promote()
        request.answer.append(int(sampled.tokens[0]))


def running(prompt: Prompt) -> Sequence:
    return Sequence(Request(prompt, Sampling(max_tokens=8), 1e9, lambda event: None), 0.0)


def test_prompts_read_together_give_the_logits_of_each_alone(candidate: Candidate, prompts: list[Prompt]) -> None:
    alone = [candidate.prefill(prompt, 0, CONTEXT)[-1] for prompt in prompts]
    candidate.poison()
    requests = [running(prompt) for prompt in prompts]
    for row, request in enumerate(requests):
        request.row = row
    chunks = [Chunk(request, 0, request.request.prompt.length) for request in requests]
    candidate.decoder.run(step_of([], chunks, SlotTable(ROWS, ROWS), candidate.decoder))
    together = candidate._logits()
    assert np.abs(together - np.stack(alone)).max() < 1e-4
    tokens = [int(logits.argmax()) for logits in together]  # and the KV they left is right as well
    lengths, deltas = [prompt.length for prompt in prompts], [prompt.delta for prompt in prompts]
    after = candidate.decode(tokens, lengths, deltas)
    for row, prompt in enumerate(prompts):
        candidate.prefill(prompt, 0, CONTEXT)
        expected = candidate.decode(tokens[row : row + 1], lengths[row : row + 1], deltas[row : row + 1])
        assert np.abs(after[row] - expected[0]).max() < 1e-4


def test_decode_steps_padded_to_a_bucket_draw_the_same_tokens(demo_build: Path, prompts: list[Prompt]) -> None:
    graph = decoder_in(demo_build)
    answers = []
    for buckets in ((), (1, 2, 4), (4,)):
        decoder = OrtDecoder(graph, Checkpoint.read(DEMO), ROWS, CONTEXT, buckets=buckets)
        decoder.poison()
        table, requests = SlotTable(4, ROWS), [running(prompt) for prompt in prompts[:3]]
        read(decoder, table, requests)
        for _ in range(6):
            drawn = decoder.run(step_of(requests, [], table, decoder)).tokens
            for request, token in zip(requests, drawn, strict=True):
                request.length += 1
                request.answer.append(int(token))
        answers.append([request.answer for request in requests])
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("rows", [1, 3])
def test_guesses_for_one_row_draw_what_its_tokens_draw_one_by_one(
    candidate: Candidate, prompts: list[Prompt], rows: int
) -> None:
    decoder, answers = candidate.decoder, []
    for drafted in (None, *range(rows)):
        decoder.poison()
        table, requests = SlotTable(4, ROWS), [running(prompt) for prompt in prompts[:rows]]
        read(decoder, table, requests)
        if drafted is not None:
            guesses = answers[0][drafted][1:3]  # two that are right, and one that is not
            draft = Draft(requests[drafted], [*guesses, answers[0][drafted][3] + 1])
            drawn = decoder.run(step_of(requests, [], table, decoder, draft)).tokens.tolist()
            assert drawn[rows : rows + 2] == answers[0][drafted][2:4]
            for request, token in zip(requests, drawn, strict=False):
                request.length += 1
                request.answer.append(token)
            requests[drafted].length += 2
            requests[drafted].answer += drawn[rows : rows + 2]
        for _ in range(7):
            drawn = decoder.run(step_of(requests, [], table, decoder)).tokens.tolist()
            for request, token in zip(requests, drawn, strict=True):
                request.length += 1
                request.answer.append(token)
        answers.append([request.answer[:8] for request in requests])
    assert all(answer == answers[0] for answer in answers)


def test_rows_decoded_beside_a_prompt_give_the_logits_of_each_alone(
    candidate: Candidate, prompts: list[Prompt]
) -> None:
    """Two rows decode while a third prompt is read in pieces, a row further up than the next."""
    table, rows = SlotTable(ROWS, ROWS), [running(prompt) for prompt in prompts[:2]]
    read, piece = running(prompts[2]), 7
    expected = candidate.prefill(prompts[2], 4, piece)  # at the end of each piece
    candidate.poison()
    for row, request in enumerate(rows):
        logits = candidate.prefill(prompts[row], row, CONTEXT)[-1]
        request.row, request.length = row, prompts[row].length
        request.answer.append(int(logits.argmax()))
    read.row, wanted, found = 4, list[np.ndarray](), list[np.ndarray]()
    for start in range(0, prompts[2].length, piece):
        chunk = Chunk(read, start, min(start + piece, prompts[2].length))
        candidate.decoder.run(step_of(rows, [chunk], table, candidate.decoder))
        found.append(candidate._logits())
        for row, request in enumerate(rows):
            request.length += 1
            request.answer.append(int(found[-1][row].argmax()))
    candidate.poison()
    for row, prompt in enumerate(prompts[:2]):
        candidate.prefill(prompt, row, CONTEXT)
    for step in range(len(found)):
        lengths = [prompt.length + step for prompt in prompts[:2]]
        tokens, deltas = [request.answer[step] for request in rows], [prompt.delta for prompt in prompts[:2]]
        wanted.append(candidate.decode(tokens, lengths, deltas))
    assert np.abs(np.stack([logits[:2] for logits in found]) - np.stack(wanted)).max() < 1e-4
    assert np.abs(np.stack([logits[2] for logits in found]) - expected).max() < 1e-4
