"""Images: how they are sent, several of them, and what is refused."""

from __future__ import annotations

from typing import Any

from behaviours.asking import CHAT, PICTURE, PICTURE_URL, WITH_PICTURE, Service
from behaviours.listed import Behaviour, answered, behaviours_of, holds, refused

_VLLM = "vLLM test_vision"
_LLAMA = "llama.cpp test_vision_api"
_ASK = {"type": "text", "text": "What is in the picture?"}


def _with(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [*parts, _ASK]}], "max_tokens": 4}


def _image(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}, **more}


@holds(_VLLM, "An image as a data URL is described, with `logprobs` where asked for.")
def described(service: Service) -> bool:
    choice = service.chat(WITH_PICTURE, max_tokens=10, logprobs=True, top_logprobs=5).choice
    return len(choice["message"]["content"]) >= 10 and bool(choice["logprobs"]["content"])


@holds(_VLLM, "`usage.prompt_tokens` counts the tokens of images, as `/tokenize` does.")
def counted(service: Service) -> bool:
    usage, counted = service.chat(WITH_PICTURE).usage, service.tokens(messages=WITH_PICTURE)
    return usage["prompt_tokens"] == counted["count"] > counted["image_tokens"] > 0


@holds("vLLM test_tokenization_vlm", "`/tokenize` gives one id for each token of an image.")
def expanded(service: Service) -> bool:
    counted = service.tokens(messages=WITH_PICTURE)
    ids: list[int] = counted["tokens"]
    return max(map(ids.count, set(ids))) >= counted["image_tokens"] > 1


@holds(_VLLM, "A conversation about an image goes on.")
def goes_on(service: Service) -> bool:
    talk = [*WITH_PICTURE, {"role": "assistant", "content": "Shapes."}, {"role": "user", "content": "Which ones?"}]
    return bool(service.chat(talk).content)


@holds(_VLLM, "The stream of an answer about an image is the whole answer.")
def streamed(service: Service) -> bool:
    reply = service.stream(WITH_PICTURE, max_tokens=12)
    return reply.streamed() == service.chat(WITH_PICTURE, max_tokens=12).content


@holds(_VLLM, "Two images are answered, and each counts.")
def two(service: Service) -> bool:
    one = service.chat(WITH_PICTURE).usage["prompt_tokens_details"]["image_tokens"]
    both = service.post(CHAT, _with(_image(PICTURE_URL), _image(PICTURE_URL))).usage["prompt_tokens_details"][
        "image_tokens"
    ]
    return bool(both == 2 * one)


@holds(_VLLM, "More images than are allowed are a 400, and the next request is answered.")
def too_many(service: Service) -> bool:
    reply = service.post(CHAT, _with(*[_image(PICTURE_URL)] * 40))
    return reply.status == 400 and service.chat().status == 200


@holds(_VLLM, "The sentence of a broken image tells no address of memory and no path.")
def nothing_of_the_inside(service: Service) -> bool:
    reply = service.post(CHAT, _with(_image("data:image/png;base64,AAAA")))
    return reply.status == 400 and not any(word in reply.text for word in ("0x", "BytesIO", "PIL", ".py"))


@holds("vLLM test_mm_processor_kwargs", "`mm_processor_kwargs` bounds the tokens of an image.")
def bounded(service: Service) -> bool:
    usual = service.chat(WITH_PICTURE).usage["prompt_tokens_details"]["image_tokens"]
    kwargs = {"max_pixels": 2 * 56 * 56}
    fewer = service.chat(WITH_PICTURE, mm_processor_kwargs=kwargs).usage["prompt_tokens_details"]["image_tokens"]
    return 0 < fewer < usual


@holds("vLLM test_cache_accounting", "An image that was seen is not encoded again, and the answer is the same.")
def seen_again(service: Service) -> bool:
    return service.chat(WITH_PICTURE).content == service.chat(WITH_PICTURE).content


@holds(_LLAMA, "`/models` tells that images are taken.")
def told(service: Service) -> bool:
    model = service.get("/models").body["data"][0]
    return model["capabilities"]["vision"] and "image" in model["input_modalities"]


BEHAVIOURS: list[Behaviour] = [
    *behaviours_of(globals()),
    answered(
        _VLLM,
        "A system text may come before an image.",
        CHAT,
        {"messages": [{"role": "system", "content": "You are helpful."}, *WITH_PICTURE], "max_tokens": 4},
    ),
    answered(
        _VLLM,
        "An image may stand after the text.",
        CHAT,
        {"messages": [{"role": "user", "content": [_ASK, _image(PICTURE_URL)]}], "max_tokens": 4},
    ),
    answered(
        _VLLM,
        "Unknown fields beside an image and in its object do no harm.",
        CHAT,
        _with({"type": "image_url", "image_url": {"url": PICTURE_URL, "odd": "1"}, "also_odd": "2"}),
    ),
    answered(_VLLM, "`uuid` beside an image is passed over.", CHAT, _with(_image(PICTURE_URL, uuid="a"))),
    refused(
        _VLLM,
        "An image without a URL, by a `uuid` never seen, is refused.",
        CHAT,
        _with({"type": "image_url", "image_url": {}, "uuid": "never_seen"}),
        "image_url",
    ),
    answered(_LLAMA, "A part without `type` is what it holds.", CHAT, _with({"image_url": {"url": PICTURE_URL}})),
    refused(_LLAMA, "A URL that is none is refused.", CHAT, _with(_image("malformed")), "image_url"),
    refused(
        _LLAMA,
        "A URL of a host that is not allowed is refused.",
        CHAT,
        _with(_image("https://google.com/404")),
        "image_url",
    ),
    refused(_LLAMA, "A file of the server is refused.", CHAT, _with(_image("file://mtmd/test-1.jpeg")), "image_url"),
    refused(
        "llama.cpp test_security",
        "So it is with `..` in its path.",
        CHAT,
        _with(_image("file://../mtmd/test-1.jpeg")),
        "image_url",
    ),
    refused(
        "llama.cpp test_security",
        "So it is with an absolute path.",
        CHAT,
        _with(_image("file:////etc/passwd")),
        "image_url",
    ),
    refused(
        _LLAMA, "Data that is no image is refused.", CHAT, _with(_image("data:image/png;base64,aGVsbG8=")), "image_url"
    ),
    refused(
        "vLLM test_chat_error",
        "Sound is refused by name.",
        CHAT,
        _with({"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}),
        "input_audio",
    ),
    answered(
        "vLLM test_vision",
        "`detail` of `low` is taken.",
        CHAT,
        _with({"type": "image_url", "image_url": {"url": PICTURE_URL, "detail": "low"}}),
    ),
    answered(
        "llama.cpp test_vision_api",
        "Base64 without a data URL's head is taken by `/v1/chat/vision`.",
        "/v1/chat/vision",
        {"image": PICTURE, "prompt": "What is it?", "max_tokens": 4},
    ),
]
