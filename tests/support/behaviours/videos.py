"""Videos: how they are sent, several of them, and what is refused."""

from __future__ import annotations

import base64
import io
from functools import cache
from typing import Any

from PIL import Image

from behaviours.asking import CHAT, Service
from behaviours.listed import Behaviour, behaviours_of, holds, refused

_VLLM = "vLLM test_video"
_ASK = {"type": "text", "text": "What is in the video?"}
_BROKEN = "data:video/mp4;base64,AAAA"


def _frames(count: int = 8) -> list[Image.Image]:
    return [Image.new("RGB", (64, 48), (40 + 20 * number, 90, 200 - 20 * number)) for number in range(count)]


@cache
def _video() -> str:
    """A row of JPEGs, which is how vLLM's clients send frames that they have chosen."""
    row = []
    for frame in _frames():
        file = io.BytesIO()
        frame.save(file, "JPEG")
        row.append(base64.b64encode(file.getvalue()).decode())
    return f"data:video/jpeg;base64,{','.join(row)}"


@cache
def _film() -> str:
    """A file of which frames are chosen here."""
    file = io.BytesIO()
    first, *others = _frames()
    first.save(file, "GIF", save_all=True, append_images=others, duration=200)
    return f"data:image/gif;base64,{base64.b64encode(file.getvalue()).decode()}"


def _with(*urls: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*({"type": "video_url", "video_url": {"url": url}} for url in urls), _ASK]}]


def _tokens(service: Service, *urls: str, **more: Any) -> int:
    return int(service.chat(_with(*urls), **more).usage["prompt_tokens"])


@holds(_VLLM, "A video as a data URL of JPEGs is described, with `logprobs` where asked for.")
def described(service: Service) -> bool:
    choice = service.chat(_with(_video()), max_tokens=10, logprobs=True, top_logprobs=5).choice
    return len(choice["message"]["content"]) > 0 and bool(choice["logprobs"]["content"])


@holds(_VLLM, "A conversation about a video goes on.")
def goes_on(service: Service) -> bool:
    said = [{"role": "assistant", "content": "A colour."}, {"role": "user", "content": "Express it in JSON."}]
    return bool(service.chat([*_with(_video()), *said]).content)


@holds(_VLLM, "The stream of an answer about a video is the whole answer, and tells one finish reason.")
def streamed(service: Service) -> bool:
    reply, whole = service.stream(_with(_video()), max_tokens=12), service.chat(_with(_video()), max_tokens=12)
    ends = [choice["finish_reason"] for event in reply.events for choice in event["choices"] if choice["finish_reason"]]
    return reply.streamed() == whole.content and ends == [whole.choice["finish_reason"]]


@holds(_VLLM, "Several videos are answered, and each counts.")
def several(service: Service) -> bool:
    one, two, three = (_tokens(service, *[_video()] * count) for count in (1, 2, 3))
    return three - two == two - one > 0


@holds(_VLLM, "More videos than are allowed are a 400, and the next request is answered.")
def too_many(service: Service) -> bool:
    reply = service.chat(_with(*[_video()] * 5))
    return reply.status == 400 and service.chat().status == 200


@holds("vLLM test_media_io_kwargs", "`media_io_kwargs.video.num_frames` bounds how many frames are seen.")
def fewer_frames(service: Service) -> bool:
    few = _tokens(service, _film(), media_io_kwargs={"video": {"num_frames": 2}})
    return few < _tokens(service, _film(), media_io_kwargs={"video": {"num_frames": 8}})


@holds(_VLLM, "`/tokenize` counts a video as the answer's `usage` does.")
def counted(service: Service) -> bool:
    return bool(service.tokens(messages=_with(_video()))["count"] == _tokens(service, _video()))


@holds(_VLLM, "The sentence of a broken video tells no address of memory and no path.")
def nothing_of_the_inside(service: Service) -> bool:
    reply = service.chat(_with(_BROKEN))
    return reply.status == 400 and not any(word in reply.text for word in ("0x", "BytesIO", "PIL", "av.", ".py"))


BEHAVIOURS: list[Behaviour] = [
    *behaviours_of(globals()),
    refused(_VLLM, "A video that is none is refused.", CHAT, {"messages": _with(_BROKEN)}, "video_url"),
    refused(
        _VLLM,
        "A video's URL of a host that is not allowed is refused.",
        CHAT,
        {"messages": _with("https://example.org/film.mp4")},
        "video_url",
    ),
    refused(_VLLM, "A file of the server is refused.", CHAT, {"messages": _with("file:///etc/passwd")}, "video_url"),
]
