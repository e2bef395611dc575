"""Checkpoints of other shapes, served by Triton, answer with the words of transformers."""

from __future__ import annotations

import base64
from contextlib import closing
from pathlib import Path

import pytest
from glm41v import make_glm41v
from random_checkpoints import SHAPES, make, needs_torch
from rich.console import Console
from serving import png, triton_on

from export.build.pipeline import build
from export.verify.candidate import Candidate
from export.verify.cases import Case, input_ids, synthetic_image
from gateway.app import create_app
from gateway.settings import GatewaySettings
from gateway.triton.grpc_client import TritonBackend
from gateway.triton.load_balancer import LoadBalancer
from glmserve.model.chat_template import ImagePart, Message
from glmserve.model.output_parser import AnswerReader

pytestmark = [pytest.mark.triton, pytest.mark.parity, needs_torch]
QUESTIONS = ("What is in this picture?", "图中有几个三角形？", "red or blue?")
SIZES = ((112, 112), (150, 90), (60, 224))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_checkpoint_of_another_shape_answers_as_transformers_does(shape, tmp_path: Path) -> None:
    _assert_answers(make(shape, tmp_path / shape.name), tmp_path)


def test_glm_41v_thinking_answers_as_transformers_does(tmp_path: Path) -> None:
    _assert_answers(make_glm41v(tmp_path / "glm-4.1v"), tmp_path)


def _assert_answers(checkpoint: Path, tmp_path: Path) -> None:
    from export.verify.reference import Reference

    folder = build(checkpoint, tmp_path / "builds", Console(quiet=True))
    reference, candidate = Reference(checkpoint), Candidate(folder, 1, 512)
    with (
        triton_on(folder, require_certificate=False) as triton,
        closing(LoadBalancer(triton.grpc_url, lambda url: TritonBackend(url, 10.0))) as pool,
    ):
        client = create_app(GatewaySettings(build=folder), pool).test_client()
        for number, (question, size) in enumerate(zip(QUESTIONS, SIZES, strict=True)):
            image = synthetic_image(*size, seed=number)
            body = {
                "image": base64.b64encode(png(image)).decode(),
                "prompt": question,
                "temperature": 0,
                "max_tokens": 24,
            }
            found = client.post("/v1/chat/vision", json=body).get_json()
            case = Case("", (Message("user", (ImagePart(), question)),), (image,))
            reader = AnswerReader(candidate.tokenizer)
            reader.push(reference.answer(input_ids(candidate, case), [image], 24))
            reader.finish()
            assert found["result"] == reader.content.strip(), checkpoint.name
