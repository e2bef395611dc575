"""Fields of a chat completion that act on tokens, and the mistakes in them."""

from __future__ import annotations

from typing import Any

from behaviours.asking import ASKED, CHAT, DESCRIBE, Service
from behaviours.listed import Behaviour, answered, behaviours_of, holds, refused

_STOPS = "vLLM test_chat_stop_token_ids_validation"
_BIAS = "vLLM test_chat_logit_bias_validation"
_SAMPLING = "vLLM test_sampling_params"
_LLAMA = "llama.cpp test_completion"
_TRUNCATED = "vLLM test_chat_completion"


def _asked(**fields: Any) -> dict[str, Any]:
    return {"messages": ASKED, "max_tokens": 4, **fields}


def _largest_id(service: Service) -> int:
    """The largest id that the model can draw, as the sentence for a larger one tells it."""
    reply = service.chat(stop_token_ids=[10**8])
    return int(reply.error["message"].rpartition(" ")[2].rstrip("."))


@holds(_STOPS, "A stop token id of the vocabulary is taken.")
def stop_id(service: Service) -> bool:
    return service.chat(stop_token_ids=[_largest_id(service)]).status == 200


@holds(_STOPS, "One outside of it is a 400 that names the id and the vocabulary's bound.")
def stop_id_outside(service: Service) -> bool:
    largest = _largest_id(service)
    reply = service.chat(stop_token_ids=[largest + 2])
    return reply.status == 400 and str(largest + 2) in reply.text and str(largest) in reply.text


@holds(_BIAS, "`logit_bias` of a token of the vocabulary is taken.")
def bias(service: Service) -> bool:
    return service.chat(logit_bias={str(_largest_id(service)): 1.0}).status == 200


@holds(_BIAS, "One outside of it is a 400 that names the id and the vocabulary's bound.")
def bias_outside(service: Service) -> bool:
    largest = _largest_id(service)
    reply = service.chat(logit_bias={str(largest + 2): 1.0})
    return reply.status == 400 and str(largest + 2) in reply.text and str(largest) in reply.text


@holds(_SAMPLING, "`stop` as a string and as a list of it are the same, and the answer ends before it.")
def stop_string(service: Service) -> bool:
    said = service.chat(max_tokens=16).content
    word = said.split()[1]
    one, many = service.chat(max_tokens=16, stop=word), service.chat(max_tokens=16, stop=[word, "never said"])
    assert one.choice["finish_reason"] == "stop" and one.choice["stop_reason"] == word
    return one.content == many.content and word not in one.content


@holds("vLLM test_stop_strings", "`include_stop_str_in_output` keeps the string that ended the answer.")
def stop_string_kept(service: Service) -> bool:
    word = service.chat(max_tokens=16).content.split()[1]
    return service.chat(max_tokens=16, stop=word, include_stop_str_in_output=True).content.endswith(word)


@holds("vLLM test_stop_reason", "`stop_reason` is the stop token's id where one ended the answer.")
def stop_reason_of_an_id(service: Service) -> bool:
    second = service.chat(return_token_ids=True).choice["token_ids"][1]
    choice = service.chat(stop_token_ids=[second]).choice
    return choice["finish_reason"] == "stop" and choice["stop_reason"] == second


@holds("vLLM test_stop_reason", "`stop_reason` is null where the answer came to its own end.")
def stop_reason_of_the_end(service: Service) -> bool:
    choice = service.saying("A circle.").chat().choice
    return choice["finish_reason"] == "stop" and choice["stop_reason"] is None


@holds(_BIAS, "All wrong keys of `logit_bias` are named at once.")
def wrong_biases(service: Service) -> bool:
    reply = service.chat(logit_bias={"bad1": 50.0, "bad2": 20.0})
    return reply.status == 400 and "bad1" in reply.text and "bad2" in reply.text


@holds("vLLM test_min_tokens", "With `min_tokens` no end and no stop token ends the answer before.")
def min_tokens(service: Service) -> bool:
    first = service.chat(return_token_ids=True).choice["token_ids"][0]
    reply = service.chat(max_tokens=16, min_tokens=12, stop_token_ids=[first])
    return bool(reply.usage["completion_tokens"] >= 12)


@holds("vLLM test_min_tokens", "`min_tokens` above the default of `max_tokens` raises that.")
def min_tokens_raise_the_default(service: Service) -> bool:
    reply = service.post(CHAT, {"messages": ASKED, "temperature": 0, "min_tokens": 600})
    assert reply.status == 200, reply.text
    return bool(reply.usage["completion_tokens"] >= 600)


@holds("vLLM test_ignore_eos", "With `ignore_eos` an answer has `max_tokens` tokens.")
def ignore_eos(service: Service) -> bool:
    return bool(service.chat(max_tokens=64, ignore_eos=True).usage["completion_tokens"] == 64)


@holds("vLLM test_allowed_token_ids", "`allowed_token_ids` are the only tokens of the answer.")
def allowed_ids(service: Service) -> bool:
    ids = service.tokens(prompt="red blue")["tokens"]
    choice = service.chat(allowed_token_ids=ids, max_tokens=6, return_token_ids=True, ignore_eos=True).choice
    return set(choice["token_ids"]) <= set(ids)


@holds("vLLM test_bad_words", "`bad_words` never appear.")
def bad_words(service: Service) -> bool:
    word = service.chat(max_tokens=16).content.split()[0]
    return not service.chat(max_tokens=16, bad_words=[word]).content.startswith(word)


@holds(_TRUNCATED, "`truncate_prompt_tokens` keeps the last tokens, as `truncation_side` of `left` does.")
def truncated_left(service: Service) -> bool:
    whole = service.chat(return_token_ids=True).body["prompt_token_ids"]
    fields = {"truncate_prompt_tokens": 4, "return_token_ids": True}
    usual = service.chat(**fields).body["prompt_token_ids"]
    return usual == whole[-4:] == service.chat(**fields, truncation_side="left").body["prompt_token_ids"]


@holds(_TRUNCATED, "`truncation_side` of `right` keeps the first ones.")
def truncated_right(service: Service) -> bool:
    whole = service.chat(return_token_ids=True).body["prompt_token_ids"]
    fields = {"truncate_prompt_tokens": 4, "return_token_ids": True, "truncation_side": "right"}
    return bool(service.chat(**fields).body["prompt_token_ids"] == whole[:4])


@holds(_LLAMA, "The same seed gives the same answer, another one another.")
def seeds(service: Service) -> bool:
    said = [
        service.chat(DESCRIBE, temperature=2, max_tokens=32, ignore_eos=True, seed=seed).content
        for seed in (1, 1, 2, 3)
    ]
    return said[0] == said[1] and len(set(said)) > 1


@holds(_LLAMA, "`cache_prompt` changes nothing of an answer.")
def cache_prompt(service: Service) -> bool:
    return service.chat(cache_prompt=False).content == service.chat(cache_prompt=True).content


@holds("vLLM test_cache_salt", "`cache_salt` keeps what was cached from requests of another salt.")
def cache_salt(service: Service) -> bool:
    asked = [{"role": "user", "content": "Tell me of triangles and of crosses. " * 8}]
    service.chat(asked, cache_salt="one")
    cached = [
        service.chat(asked, cache_salt=salt).usage["prompt_tokens_details"]["cached_tokens"] for salt in ("two", "one")
    ]
    return cached[0] < cached[1]


BEHAVIOURS: list[Behaviour] = [
    *behaviours_of(globals()),
    refused(_STOPS, "A negative stop token id is refused.", CHAT, _asked(stop_token_ids=[-1]), "stop_token_ids"),
    refused(
        _BIAS,
        "A key of `logit_bias` that is no id is named.",
        CHAT,
        _asked(logit_bias={"not_an_id": 50}),
        "not_an_id",
        "logit_bias",
    ),
    refused(
        _BIAS,
        "A value of `logit_bias` that is no number is refused.",
        CHAT,
        _asked(logit_bias={"1": "much"}),
        "logit_bias",
    ),
    refused(
        "vLLM test_sampling_params",
        "A `temperature` below 0 is refused.",
        CHAT,
        _asked(temperature=-0.1),
        "temperature",
    ),
    refused(
        "vLLM test_sampling_params", "A `temperature` above 2 is refused.", CHAT, _asked(temperature=2.5), "temperature"
    ),
    refused("vLLM test_sampling_params", "`top_p` of 0 is refused.", CHAT, _asked(top_p=0), "top_p"),
    refused("vLLM test_sampling_params", "`top_p` above 1 is refused.", CHAT, _asked(top_p=1.5), "top_p"),
    refused("vLLM test_sampling_params", "`top_k` below -1 is refused.", CHAT, _asked(top_k=-2), "top_k"),
    answered("vLLM test_sampling_params", "`top_k` of -1 is none.", CHAT, _asked(top_k=-1)),
    refused("vLLM test_sampling_params", "`min_p` above 1 is refused.", CHAT, _asked(min_p=1.5), "min_p"),
    refused("vLLM test_sampling_params", "`max_tokens` of 0 is refused.", CHAT, _asked(max_tokens=0), "max_tokens"),
    refused(
        "vLLM test_sampling_params", "A negative `min_tokens` is refused.", CHAT, _asked(min_tokens=-1), "min_tokens"
    ),
    refused(
        "vLLM test_sampling_params",
        "`min_tokens` above `max_tokens` is refused.",
        CHAT,
        _asked(min_tokens=9),
        "min_tokens",
    ),
    refused(
        "vLLM test_sampling_params",
        "`frequency_penalty` above 2 is refused.",
        CHAT,
        _asked(frequency_penalty=3),
        "frequency_penalty",
    ),
    refused(
        "vLLM test_sampling_params",
        "`presence_penalty` below -2 is refused.",
        CHAT,
        _asked(presence_penalty=-3),
        "presence_penalty",
    ),
    refused(
        "vLLM test_sampling_params",
        "`repetition_penalty` of 0 is refused.",
        CHAT,
        _asked(repetition_penalty=0),
        "repetition_penalty",
    ),
    refused("vLLM test_sampling_params", "`n` of 0 is refused.", CHAT, _asked(n=0), "The field n "),
    refused(
        "vLLM test_bad_words", "An empty word among `bad_words` is refused.", CHAT, _asked(bad_words=[""]), "bad_words"
    ),
    refused(
        "vLLM test_allowed_token_ids",
        "Ids outside of the vocabulary are refused.",
        CHAT,
        _asked(allowed_token_ids=[10**8]),
        "allowed_token_ids",
    ),
    answered(
        "vLLM test_sampling_params",
        "All sampling fields together are taken.",
        CHAT,
        _asked(
            top_k=40,
            top_p=0.9,
            min_p=0.01,
            repetition_penalty=1.2,
            frequency_penalty=0.1,
            presence_penalty=0.1,
            seed=42,
        ),
    ),
    refused("vLLM test_chat", "`priority` is refused where requests have none.", CHAT, _asked(priority=1), "priority"),
]
