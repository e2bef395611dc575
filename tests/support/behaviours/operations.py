"""Tokens, models, health, load, metrics, keys and addresses."""

from __future__ import annotations

from typing import Any

from behaviours.asking import ASKED, CHAT, TOOL, Service
from behaviours.listed import Behaviour, answered, behaviours_of, holds, refused

_TOKENS = "vLLM test_tokenization"
_OPS = "vLLM test_basic"
_KEYS = "vLLM test_authentication_middleware"
_LLAMA_TOKENS = "llama.cpp test_tokenize"
_LLAMA_KEYS = "llama.cpp test_security"
_LLAMA = "llama.cpp test_basic"
_PROMPT = "This is a test prompt. 媽 and 🤗"
_BEGUN = [*ASKED, {"role": "assistant", "content": "Sure,"}]


@holds(_TOKENS, "`/tokenize` of a prompt gives `tokens`, `count`, `max_model_len`, and `token_strs` of null.")
def prompt(service: Service) -> bool:
    found = service.tokens(prompt=_PROMPT, add_special_tokens=False)
    return found["count"] == len(found["tokens"]) and found["max_model_len"] > 0 and found["token_strs"] is None


@holds(_TOKENS, "`add_special_tokens` is taken.")
def special(service: Service) -> bool:
    return bool(service.tokens(prompt=_PROMPT, add_special_tokens=True)["tokens"])


@holds(_TOKENS, "`/tokenize` of messages counts as the chat route does, with `add_generation_prompt` and without.")
def messages(service: Service) -> bool:
    with_it, without = (service.tokens(messages=ASKED, add_generation_prompt=is_on)["count"] for is_on in (True, False))
    return with_it == service.chat().usage["prompt_tokens"] > without


@holds(_TOKENS, "`continue_final_message` leaves the last message open.")
def continued(service: Service) -> bool:
    fields = {"continue_final_message": True, "add_generation_prompt": False}
    return service.tokens(messages=_BEGUN, **fields)["count"] == service.chat(_BEGUN, **fields).usage["prompt_tokens"]


@holds(_TOKENS, "Tools count.")
def tools(service: Service) -> bool:
    return service.tokens(messages=ASKED, tools=[TOOL])["count"] == service.chat(tools=[TOOL]).usage["prompt_tokens"]


@holds(_TOKENS, "`return_token_strs` gives a text for each token.")
def token_strs(service: Service) -> bool:
    found = service.tokens(prompt="This is a test", return_token_strs=True)
    return len(found["token_strs"]) == found["count"] and "".join(found["token_strs"]) == "This is a test"


@holds(_LLAMA_TOKENS, "`/detokenize` gives the text back as `content`, and as vLLM's `prompt`.")
def back(service: Service) -> bool:
    found = service.post("/detokenize", {"tokens": service.tokens(prompt=_PROMPT)["tokens"]}).body
    return bool(found == {"prompt": _PROMPT, "content": _PROMPT})


@holds(_TOKENS, "`/tokenizer_info` shows the tokenizer's class, control tokens and chat template.")
def tokenizer_info(service: Service) -> bool:
    found = service.get("/tokenizer_info").body
    assert isinstance(found["tokenizer_class"], str) and "messages" in found["chat_template"]
    (user,) = service.tokens(prompt="<|user|>")["tokens"]
    return bool(found["added_tokens_decoder"][str(user)] == {"content": "<|user|>", "special": True})


@holds("vLLM test_invocations", "`/invocations` is the chat route.")
def invocations(service: Service) -> bool:
    asked = {"messages": ASKED, "temperature": 0, "max_tokens": 8}
    told = service.post("/invocations", asked)
    assert service.post("/invocations", {}).error["param"] == "messages"
    return told.content == service.chat().content and told.usage == service.chat().usage


@holds(_LLAMA_TOKENS, "`content` is another name of `prompt`.")
def content(service: Service) -> bool:
    return bool(service.tokens(content=_PROMPT)["tokens"] == service.tokens(prompt=_PROMPT)["tokens"])


@holds(
    _LLAMA_TOKENS,
    "`with_pieces` gives each token as an object of `id` and `piece`, which is bytes where it is no text.",
)
def pieces(service: Service) -> bool:
    found = service.tokens(content=_PROMPT, with_pieces=True)["tokens"]
    assert [each["id"] for each in found] == service.tokens(prompt=_PROMPT)["tokens"]
    joined = b"".join(
        each["piece"].encode() if isinstance(each["piece"], str) else bytes(each["piece"]) for each in found
    )
    return joined.decode() == _PROMPT and all(each["piece"] for each in found)


def _prompt(service: Service, **fields: Any) -> str:
    return str(service.post("/apply-template", {"messages": ASKED, **fields}).body["prompt"])


@holds("llama.cpp test_template", "`/apply-template` gives the text of a conversation's prompt.")
def template(service: Service) -> bool:
    return "Who are you?" in _prompt(service) and _prompt(service) == _prompt(service, tools=[])


@holds("llama.cpp test_template", "It ends with what begins an answer, unless `add_generation_prompt` is false.")
def template_asks(service: Service) -> bool:
    whole, silent = _prompt(service), _prompt(service, add_generation_prompt=False)
    return whole.startswith(silent) and "assistant" in whole.removeprefix(silent)


@holds("llama.cpp test_template", "Tools stand in it.")
def template_tools(service: Service) -> bool:
    return "Notes a shape." in _prompt(service, tools=[TOOL])


@holds("llama.cpp test_template", "Thinking changes its end.")
def template_thinks(service: Service) -> bool:
    return _prompt(service, enable_thinking=True) != _prompt(service, enable_thinking=False)


@holds("llama.cpp test_template", "A system text of parts is in it as a plain one is.")
def template_system(service: Service) -> bool:
    sent: tuple[Any, ...] = ("Be brief.", [{"type": "text", "text": "Be brief."}])
    talks = [[{"role": "system", "content": content}, *ASKED] for content in sent]
    return all("Be brief." in _prompt(service, messages=talk) for talk in talks)


@holds(_OPS, "`/version` tells a version.")
def version(service: Service) -> bool:
    return bool(service.get("/version").body["version"])


@holds(_OPS, "`/health` is 200 while answers can be given.")
def health(service: Service) -> bool:
    return service.get("/health").status == 200


@holds("vLLM test_health", "`/ping` is, by GET and by POST.")
def ping(service: Service) -> bool:
    return service.get("/ping").status == 200 == service.post("/ping", {}).status


@holds(_OPS, "`/load` tells `server_load`, 0 while nothing is asked.")
def load(service: Service) -> bool:
    return service.get("/load").body["server_load"] == 0


@holds("vLLM test_metrics", "`/metrics` counts requests, tokens and times, as Prometheus reads them.")
def metrics(service: Service) -> bool:
    service.chat()
    reply = service.get("/metrics")
    return reply.status == 200 and all(
        f"glm_gateway_{name}" in reply.text for name in ("requests_total", "request_seconds_bucket")
    )


@holds(_LLAMA, "`/models` lists the one model, by its name, also without `/v1`.")
def models(service: Service) -> bool:
    short, whole = service.get("/models").body, service.get("/v1/models").body
    return short == whole and len(whole["data"]) == 1 and whole["object"] == "list"


@holds("vLLM test_serving_models", "A model has `max_model_len`, and `/v1/models/NAME` tells it alone.")
def model(service: Service) -> bool:
    (found,) = service.get("/v1/models").body["data"]
    return found["max_model_len"] > 0 and service.get(f"/v1/models/{found['id']}").body == found


@holds(_LLAMA, "`/props` tells the context, the slots and the defaults of requests.")
def props(service: Service) -> bool:
    found = service.get("/props").body
    defaults = found["default_generation_settings"]
    assert found["total_slots"] == len(service.get("/slots").body) and found["model_path"]
    return defaults["n_ctx"] == service.tokens(prompt="a")["max_model_len"] and defaults["params"]["seed"] == -1


@holds(_LLAMA, "`/slots` tells of each whether it is busy, and nothing of what it is asked.")
def slots(service: Service) -> bool:
    found = service.get("/slots").body
    assert not any(each["is_processing"] for each in found) and all(each["n_ctx"] > 0 for each in found)
    return bool(found) and "params" not in found[0] and "prompt" not in found[0]


@holds(_LLAMA, "`/` is a page.")
def page(service: Service) -> bool:
    return "<!doctype html>" in service.get("/").text.lower()


@holds(_KEYS, "Without a key every route but those of health is a 401.")
def keys(service: Service) -> bool:
    keyed, _ = service.keyed()
    closed = [keyed.chat().status, keyed.complete().status, keyed.message().status, keyed.get("/v1/models").status]
    return set(closed) == {401} and keyed.get("/health").status == 200


@holds(_KEYS, "A slash at the end opens nothing.")
def slash(service: Service) -> bool:
    keyed, key = service.keyed()
    return (
        keyed.get("/v1/models/").status == 401 and keyed.get("/v1/models/", Authorization=f"Bearer {key}").status == 200
    )


@holds(_KEYS, "A wrong key is a 401.")
def wrong_key(service: Service) -> bool:
    keyed, _ = service.keyed()
    return keyed.get("/v1/models", Authorization="Bearer wrong").status == 401


@holds(_KEYS, "OPTIONS without a key shows nothing of a closed route.")
def options(service: Service) -> bool:
    keyed, _ = service.keyed()
    reply = keyed.send("OPTIONS", "/metrics", None, {})
    return "glm_gateway" not in reply.text


@holds(_LLAMA_KEYS, "The refusal's type is `authentication_error`.")
def key_error(service: Service) -> bool:
    keyed, _ = service.keyed()
    return keyed.complete().error["type"] == "authentication_error"


@holds(_LLAMA_KEYS, "A key comes as `Authorization: Bearer`.")
def bearer(service: Service) -> bool:
    keyed, key = service.keyed()
    return keyed.post("/completions", {"prompt": "a", "max_tokens": 1}, Authorization=f"Bearer {key}").status == 200


@holds(_LLAMA_KEYS, "A key comes as `X-Api-Key`.")
def header(service: Service) -> bool:
    keyed, key = service.keyed()
    return (
        keyed.send(
            "POST",
            "/completions",
            {"prompt": "a", "max_tokens": 1},
            {"Content-Type": "application/json", "X-Api-Key": key},
        ).status
        == 200
    )


@holds(_LLAMA_KEYS, "The page needs no key.")
def page_without_key(service: Service) -> bool:
    keyed, _ = service.keyed()
    return keyed.get("/").status == 200


@holds("vLLM test_cors_middleware", "A page of another site gets no permission unless the settings list it.")
def cors(service: Service) -> bool:
    reply = service.send(
        "OPTIONS", CHAT, None, {"Origin": "http://elsewhere.example", "Access-Control-Request-Method": "POST"}
    )
    return not any(name.lower() == "access-control-allow-origin" for name in reply.headers)


@holds("vLLM test_root_path", "An address that nobody knows is a 404 in the shape of an error.")
def unknown_address(service: Service) -> bool:
    reply = service.get("/no/such/address")
    return reply.status == 404 and "error" in reply.body


@holds("vLLM test_openapi_schema", "`/openapi.json` describes the routes as OpenAPI 3.1.")
def openapi(service: Service) -> bool:
    document: Any = service.get("/openapi.json").body
    return (
        document["openapi"].startswith("3.1")
        and CHAT in document["paths"]
        and '"nullable"' not in service.get("/openapi.json").text
    )


BEHAVIOURS: list[Behaviour] = [
    *behaviours_of(globals()),
    refused(
        _TOKENS,
        "A prompt and messages together are refused.",
        "/tokenize",
        {"prompt": "a", "messages": ASKED},
        "messages",
    ),
    refused(_TOKENS, "Neither of them is refused.", "/tokenize", {}, "messages"),
    refused(_TOKENS, "An id outside of the vocabulary is refused.", "/detokenize", {"tokens": [10**8]}, "tokens"),
    answered(
        "vLLM test_basic",
        "`/v1/chat/completions/` with a slash at its end answers alike.",
        f"{CHAT}/",
        {"messages": ASKED, "max_tokens": 1},
    ),
    answered(
        "llama.cpp test_chat_completion",
        "`/chat/completions` answers without `/v1`.",
        "/chat/completions",
        {"messages": ASKED, "max_tokens": 1},
    ),
]
