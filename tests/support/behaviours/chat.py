"""Chat completions: answers, several of them, log-probabilities, token ids, continued messages and usage."""

from __future__ import annotations

from typing import Any

from behaviours.asking import ASKED, CHAT, DESCRIBE, MODEL, Service
from behaviours.listed import Behaviour, answered, behaviours_of, holds, refused

_VLLM = "vLLM test_chat"
_ECHO = "vLLM test_chat_echo"
_IDS = "vLLM test_return_token_ids"
_LLAMA = "llama.cpp test_chat_completion"
_TALK = [*ASKED, {"role": "assistant", "content": "A round shape."}, {"role": "user", "content": "And a square?"}]
_BEGUN = [*ASKED, {"role": "assistant", "content": "A circle is"}]


def _asked(**fields: Any) -> dict[str, Any]:
    return {"messages": ASKED, "max_tokens": 4, **fields}


@holds(_VLLM, "Without `logprobs` an answer has none.")
def no_logprobs(service: Service) -> bool:
    return service.chat(logprobs=False).choice["logprobs"] is None


@holds(_VLLM, "`logprobs` with `top_logprobs` of 0 tells each token's log-probability and no others.")
def zero_logprobs(service: Service) -> bool:
    content = service.chat(logprobs=True, top_logprobs=0).choice["logprobs"]["content"]
    return all(token["top_logprobs"] == [] for token in content) and bool(content)


@holds(_VLLM, "`top_logprobs` of 5 tells five in each place.")
def some_logprobs(service: Service) -> bool:
    return len(service.chat(logprobs=True, top_logprobs=5).choice["logprobs"]["content"][0]["top_logprobs"]) == 5


@holds(_VLLM, "After a refused request the next one is answered.")
def answers_after_a_refusal(service: Service) -> bool:
    return service.chat(logprobs=True, top_logprobs=21).status == 400 and service.chat().status == 200


@holds(
    _VLLM, "`usage` adds up, and `completion_tokens` is what `max_tokens` allowed where `finish_reason` is `length`."
)
def usage_adds_up(service: Service) -> bool:
    reply = service.chat(max_tokens=5, ignore_eos=True)
    usage = reply.usage
    assert reply.choice["finish_reason"] == "length" and usage["completion_tokens"] == 5
    return bool(usage["total_tokens"] == usage["prompt_tokens"] + 5)


@holds(_VLLM, "An answer is of role `assistant`, has an id, and one choice of index 0.")
def one_choice(service: Service) -> bool:
    body = service.chat().body
    (choice,) = body["choices"]
    return bool(body["id"]) and choice["index"] == 0 and choice["message"]["role"] == "assistant"


@holds(_VLLM, "`n` gives as many choices, numbered, with different texts.")
def several(service: Service) -> bool:
    choices = service.chat(DESCRIBE, n=3, temperature=2, max_tokens=32, seed=3, ignore_eos=True).body["choices"]
    texts = {choice["message"]["content"] for choice in choices}
    return [choice["index"] for choice in choices] == [0, 1, 2] and len(texts) > 1


@holds(_VLLM, "`n` with a `seed` gives the same choices each time.")
def several_with_a_seed(service: Service) -> bool:
    first, again = (service.chat(n=2, temperature=1, seed=42).body["choices"] for _ in range(2))
    return len(first) == 2 and first == again


@holds(_VLLM, "Content of one text part is answered as the same text alone is.")
def parts_are_text(service: Service) -> bool:
    parts = [{"role": "user", "content": [{"type": "text", "text": "Who are you?"}]}]
    return service.chat(parts).content == service.chat().content


@holds(_VLLM, "The same request of temperature 0 is answered alike.")
def greedy_is_the_same(service: Service) -> bool:
    return service.chat(max_tokens=16).content == service.chat(max_tokens=16).content


@holds(_ECHO, "`continue_final_message` goes on with the last message, and `echo` puts that before the answer.")
def echoed(service: Service) -> bool:
    fields = {"continue_final_message": True, "add_generation_prompt": False}
    with_it = service.chat(_BEGUN, echo=True, **fields).content
    without = service.chat(_BEGUN, echo=False, **fields).content
    return with_it == "A circle is" + without


@holds("llama.cpp test_prefill", "A message begun for the model may come in parts.")
def begun_in_parts(service: Service) -> bool:
    parts = [{"type": "text", "text": "A circle"}, {"type": "text", "text": " is"}]
    begun = [*ASKED, {"role": "assistant", "content": parts}]
    fields = {"continue_final_message": True, "add_generation_prompt": False}
    return service.chat(begun, **fields).content == service.chat(_BEGUN, **fields).content


@holds(_IDS, "`return_token_ids` gives the ids of prompt and answer, which are those of `/tokenize` and its text.")
def token_ids(service: Service) -> bool:
    body = service.chat(return_token_ids=True).body
    assert body["prompt_token_ids"] == service.tokens(messages=ASKED)["tokens"]
    said = service.post("/v1/detokenize", {"tokens": body["choices"][0]["token_ids"]}).body["prompt"]
    return bool(body["choices"][0]["message"]["content"] in said)


@holds(_IDS, "Without `return_token_ids` there are none.")
def no_token_ids(service: Service) -> bool:
    body = service.chat().body
    return body.get("prompt_token_ids") is None and body["choices"][0].get("token_ids") is None


@holds(_IDS, "In a stream the first chunk has the prompt's ids, the next ones have the answer's.")
def streamed_token_ids(service: Service) -> bool:
    whole = service.chat(return_token_ids=True).body
    first, *others = service.stream(return_token_ids=True).events
    ids = [token for event in others for choice in event["choices"] for token in choice.get("token_ids", ())]
    assert first["prompt_token_ids"] == whole["prompt_token_ids"] and all("prompt_token_ids" not in e for e in others)
    return bool(ids == whole["choices"][0]["token_ids"])


@holds(_IDS, "An emoji in a prompt is in the text of its ids.")
def emoji_ids(service: Service) -> bool:
    asked = [{"role": "user", "content": "I love cats 🐱"}]
    ids = service.chat(asked, return_token_ids=True).body["prompt_token_ids"]
    return "I love cats 🐱" in service.post("/v1/detokenize", {"tokens": ids}).body["prompt"]


@holds(_IDS, "`return_tokens_as_token_ids` spells the tokens of `logprobs` by their ids.")
def tokens_as_ids(service: Service) -> bool:
    choice = service.chat(return_token_ids=True, return_tokens_as_token_ids=True, logprobs=True).choice
    told = [each["token"] for each in choice["logprobs"]["content"]]
    return told == [f"token_id:{token}" for token in choice["token_ids"]][: len(told)] and bool(told)


@holds("vLLM test_usage_policy", "A whole answer tells its usage.")
def whole_usage(service: Service) -> bool:
    usage = service.chat().usage
    return usage["prompt_tokens"] > 0 and usage["completion_tokens"] > 0


@holds("vLLM test_usage_prompt_tokens", "`prompt_tokens` is what `/tokenize` counts.")
def usage_is_what_is_counted(service: Service) -> bool:
    return bool(service.chat(_TALK).usage["prompt_tokens"] == service.tokens(messages=_TALK)["count"])


@holds("vLLM test_cache_accounting", "`prompt_tokens_details.cached_tokens` tells what was kept of an earlier prompt.")
def cached_tokens(service: Service) -> bool:
    asked = [{"role": "user", "content": "Tell me of circles and of squares. " * 8}]
    service.chat(asked)
    return service.chat(asked).usage["prompt_tokens_details"]["cached_tokens"] > 0


@holds(_LLAMA, "An id says that it is a completion's, and `system_fingerprint` names the build.")
def fingerprint(service: Service) -> bool:
    body = service.chat().body
    return "cmpl" in body["id"] and bool(body["system_fingerprint"])


@holds(_LLAMA, "Two text parts are one message.")
def two_parts(service: Service) -> bool:
    parts = [{"type": "text", "text": "What is"}, {"type": "text", "text": "a circle?"}]
    return service.chat([{"role": "user", "content": parts}]).status == 200


@holds(_LLAMA, "`logprobs` of each token is at most 0, with its bytes and the likeliest others.")
def spelled_logprobs(service: Service) -> bool:
    tokens = service.chat(max_tokens=5, logprobs=True, top_logprobs=10).choice["logprobs"]["content"]
    return all(each["logprob"] <= 0 and each["bytes"] is not None and each["top_logprobs"] for each in tokens)


@holds(_LLAMA, "`logit_bias` of -100 bans tokens.")
def banned(service: Service) -> bool:
    usual = service.chat(return_token_ids=True).choice["token_ids"]
    bias = {str(token): -100 for token in usual}
    return not set(service.chat(logit_bias=bias, return_token_ids=True).choice["token_ids"]) & set(usual)


@holds(_LLAMA, "A prompt too long is a 400 whose sentence and code tell so, with the counts.")
def too_long(service: Service) -> bool:
    reply = service.chat([{"role": "user", "content": "a b c d e f g h " * 4000}])
    assert reply.status == 400, reply.text
    return reply.error["code"] == "context_length_exceeded" and any(c.isdigit() for c in reply.error["message"])


@holds(_LLAMA, "So it is for a stream, before it begins.")
def too_long_stream(service: Service) -> bool:
    return service.stream([{"role": "user", "content": "a b c d e f g h " * 4000}]).status == 400


@holds(_LLAMA, "`timings` come with an answer, and with the last chunk of a stream with usage.")
def timings(service: Service) -> bool:
    last = service.stream(stream_options={"include_usage": True}).events[-1]
    return "timings" in service.chat().body and "timings" in last


@holds("vLLM test_token_in_token_out", "A chat takes `prompt_token_ids` instead of messages.")
def prompt_of_ids(service: Service) -> bool:
    asked = service.chat(return_token_ids=True).body
    fields = {"temperature": 0, "max_tokens": 8, "return_token_ids": True}
    told = service.post(CHAT, {"prompt_token_ids": asked["prompt_token_ids"], **fields}).body
    return bool(told["choices"] == asked["choices"] and told["prompt_token_ids"] == asked["prompt_token_ids"])


@holds(_LLAMA, "`timings_per_token` puts timings into each chunk but the first.")
def timings_per_token(service: Service) -> bool:
    first, *others = service.stream(timings_per_token=True, stream_options={"include_usage": True}).events
    told = [event["timings"] for event in others if any(choice["delta"] for choice in event["choices"])]
    assert "timings" not in first and told[-1]["predicted_n"] <= 8
    return all(each["prompt_per_second"] > 0 and each["predicted_per_second"] >= 0 for each in told)


@holds("vLLM test_chat_template", "The template may be told not to begin an answer.")
def no_generation_prompt(service: Service) -> bool:
    fewer = service.tokens(messages=ASKED, add_generation_prompt=False)["tokens"]
    more = service.tokens(messages=ASKED, add_generation_prompt=True)["tokens"]
    return len(fewer) < len(more) and more[: len(fewer)] == fewer


BEHAVIOURS: list[Behaviour] = [
    *behaviours_of(globals()),
    refused(_VLLM, "`top_logprobs` above 20 is refused.", CHAT, _asked(logprobs=True, top_logprobs=21), "top_logprobs"),
    refused(_VLLM, "So it is in a stream.", CHAT, _asked(logprobs=True, top_logprobs=30, stream=True), "top_logprobs"),
    refused(_VLLM, "A `seed` below 64 bits is refused.", CHAT, _asked(seed=-(2**63) - 1), "seed"),
    refused(_VLLM, "A `seed` above 64 bits is refused.", CHAT, _asked(seed=2**63), "seed"),
    answered(
        _VLLM, "Unknown fields of a message do no harm.", CHAT, _asked(messages=[{**ASKED[0], "extra_field": "0"}])
    ),
    answered(_VLLM, "`n` of 1 is the default.", CHAT, _asked(n=1)),
    answered(
        _VLLM,
        "`max_completion_tokens` is another name of `max_tokens`.",
        CHAT,
        {"messages": ASKED, "max_completion_tokens": 4},
    ),
    answered(_VLLM, "A conversation of several turns is answered.", CHAT, _asked(messages=_TALK)),
    answered(
        _VLLM, "A system text comes first.", CHAT, _asked(messages=[{"role": "system", "content": "Be brief."}, *ASKED])
    ),
    answered(
        "vLLM test_chat_error",
        "A system text may be a list of parts.",
        CHAT,
        _asked(messages=[{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, *ASKED]),
    ),
    refused(
        "vLLM test_chat_error",
        "`response_format` of `json_schema` without a schema is refused.",
        CHAT,
        _asked(response_format={"type": "json_schema"}),
        "json_schema",
    ),
    answered("llama.cpp utils", "The name of the model may be left out.", CHAT, {"messages": ASKED, "max_tokens": 1}),
    answered("vLLM test_serving_chat", "The name of the model is taken.", CHAT, _asked(model=MODEL)),
]
