"""Through HTTP, decoder processes, gateway and Triton come the very tokens that transformers generates of a video."""

from __future__ import annotations

import base64
import json
import statistics
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from random_checkpoints import DEMO, needs_torch
from serving import ANSWER_S, Service, png
from video_answers import MOST_TOKENS, QUESTIONS, write_answers
from video_files import video

from glmserve.model.config import Checkpoint

pytestmark = pytest.mark.triton


def _ask(service: Service, content: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": content}], "temperature": 0, **options}
    request = urllib.request.Request(
        f"{service.gateway.url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=ANSWER_S) as reply:
        return dict(json.load(reply))


def _part(sent: str | bytes | np.ndarray) -> dict[str, Any]:
    if isinstance(sent, str):
        return {"type": "text", "text": sent}
    if isinstance(sent, bytes):
        return {"type": "video_url", "video_url": {"url": base64.b64encode(sent).decode()}}
    return {"type": "image_url", "image_url": base64.b64encode(png(Image.fromarray(sent))).decode()}


@needs_torch
@pytest.mark.parity
def test_answers_about_videos_are_transformers_own(service: Service, tmp_path: Path) -> None:
    out = tmp_path / "answers.json"
    write_answers(DEMO, out)
    wanted = json.loads(out.read_text("utf-8"))
    ends = Checkpoint.read(DEMO).eos_token_ids
    for name, parts in QUESTIONS:
        options = {
            "max_tokens": MOST_TOKENS,
            "return_token_ids": True,
            "chat_template_kwargs": {"enable_thinking": False},
        }
        answer = _ask(service, [_part(part) for part in parts], **options)
        found = answer["choices"][0]["token_ids"]
        assert found == [token for token in wanted[name] if token not in ends], name


def test_a_question_about_the_same_video_is_answered_at_once(service: Service) -> None:
    """The first one waits for its frames to be decoded and encoded and its prompt to be read; the next for neither."""
    shares = []
    for number in range(3):
        film = _part(video(frames=90, width=240, height=180, crf=str(20 + 4 * number)))
        firsts = []
        for question in ("What happens?", "And which way does it move?"):
            began = time.monotonic()
            _ask(service, [film, _part(question)], max_tokens=1)
            firsts.append(time.monotonic() - began)
        shares.append(firsts[1] / firsts[0])
    assert statistics.median(shares) <= 0.15, shares
