"""Texts that go on, without the chat template."""

from __future__ import annotations

from typing import Any

from behaviours.asking import TEXT, Service
from behaviours.listed import Behaviour, answered, behaviours_of, holds, refused

_VLLM = "vLLM test_completion"
_PROMPTS = "vLLM test_prompt_validation"
_IDS = "vLLM test_return_token_ids"
_LLAMA = "llama.cpp test_completion"
_WRONG = {"type": "object", "properties": {"foo": "bar"}}


def _asked(**fields: Any) -> dict[str, Any]:
    return {"prompt": "The circle is", "max_tokens": 4, **fields}


def _ids(service: Service) -> Any:
    return service.tokens(prompt="The circle is")["tokens"]


@holds(_VLLM, "A prompt goes on for `max_tokens` tokens, which `usage` counts.")
def goes_on(service: Service) -> bool:
    reply = service.complete(ignore_eos=True)
    choice, usage = reply.choice, reply.usage
    assert reply.body["object"] == "text_completion" and reply.body["id"] and choice["finish_reason"] == "length"
    return usage["completion_tokens"] == 5 and usage["total_tokens"] == usage["prompt_tokens"] + 5


@holds(_VLLM, "`usage.prompt_tokens_details.cached_tokens` is told.")
def cached(service: Service) -> bool:
    return service.complete().usage["prompt_tokens_details"]["cached_tokens"] >= 0


@holds(_VLLM, "A prompt of token ids is that of their text.")
def ids(service: Service) -> bool:
    return service.complete(_ids(service)).choice["text"] == service.complete().choice["text"]


@holds(_VLLM, "Without `logprobs` there are none.")
def no_logprobs(service: Service) -> bool:
    return service.complete().choice["logprobs"] is None


@holds(_VLLM, "`logprobs` of 0 tells each token and its own log-probability.")
def zero_logprobs(service: Service) -> bool:
    told = service.complete(logprobs=0).choice["logprobs"]
    return told["token_logprobs"][0] <= 0 and len(told["top_logprobs"][0]) == 1


@holds(_VLLM, "`logprobs` of 5 tells five or six in each place.")
def some_logprobs(service: Service) -> bool:
    return 5 <= len(service.complete(logprobs=5).choice["logprobs"]["top_logprobs"][0]) <= 6


@holds(_VLLM, "The pieces of a stream are the whole text, and one has a `finish_reason`.")
def streamed(service: Service) -> bool:
    reply = service.complete(stream=True)
    reasons = [choice["finish_reason"] for choice in reply.choices]
    assert reply.is_done and reasons[-1] and not any(reasons[:-1])
    return "".join(choice["text"] for choice in reply.choices) == service.complete().choice["text"]


@holds(_VLLM, "`n` continues a prompt several times, numbered.")
def several(service: Service) -> bool:
    choices = service.complete(n=3, temperature=2, max_tokens=20, logprobs=0, seed=42).body["choices"]
    return [choice["index"] for choice in choices] == [0, 1, 2] and len({choice["text"] for choice in choices}) == 3


@holds(_VLLM, "So it does in a stream, each with a `finish_reason`.")
def several_streamed(service: Service) -> bool:
    choices = service.complete(n=3, temperature=1.5, max_tokens=20, seed=42, stream=True).choices
    return sorted(choice["index"] for choice in choices if choice["finish_reason"]) == [0, 1, 2]


@holds(_VLLM, "With `include_usage` the last event has it, and the others have null.")
def usage_at_the_end(service: Service) -> bool:
    *others, last = service.complete(stream=True, stream_options={"include_usage": True}).events
    return last["choices"] == [] and last["usage"]["completion_tokens"] > 0 and all(e["usage"] is None for e in others)


@holds(_VLLM, "With `continuous_usage_stats` each event has the usage so far.")
def usage_so_far(service: Service) -> bool:
    options = {"include_usage": True, "continuous_usage_stats": True}
    usages = [event["usage"] for event in service.complete(stream=True, stream_options=options).events]
    return all(usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] for usage in usages)


@holds(_VLLM, "Without `include_usage` no event has usage.")
def no_usage(service: Service) -> bool:
    options: list[Any] = [{}, {"include_usage": False}, {"include_usage": False, "continuous_usage_stats": True}]
    replies = [service.complete(stream=True, stream_options=each) for each in options]
    return all(event.get("usage") is None for reply in replies for event in reply.events)


@holds(_VLLM, "Two prompts are continued side by side, alike ones alike.")
def two_prompts(service: Service) -> bool:
    choices = service.complete(["The circle is"] * 2).body["choices"]
    return len(choices) == 2 and choices[0]["text"] == choices[1]["text"]


@holds(_VLLM, "So are two of token ids.")
def two_of_ids(service: Service) -> bool:
    choices = service.complete([_ids(service)] * 2).body["choices"]
    return len(choices) == 2 and choices[0]["text"] == choices[1]["text"]


@holds(_VLLM, "Two prompts with `n` of 2 have four choices.")
def two_of_two(service: Service) -> bool:
    choices = service.complete(["The circle is", "The square is"], n=2, temperature=1).body["choices"]
    return [choice["index"] for choice in choices] == [0, 1, 2, 3]


@holds(_VLLM, "Two prompts are streamed side by side, by index.")
def two_streamed(service: Service) -> bool:
    texts = ["", ""]
    for choice in service.complete(["The circle is"] * 2, stream=True).choices:
        texts[choice["index"]] += choice["text"]
    return texts[0] == texts[1] != ""


@holds(_VLLM, "`echo` puts the prompt before the text.")
def echo(service: Service) -> bool:
    return service.complete(echo=True).choice["text"] == "The circle is" + service.complete().choice["text"]


@holds(_VLLM, "So it does for token ids.")
def echo_of_ids(service: Service) -> bool:
    return service.complete(_ids(service), echo=True).choice["text"].startswith("The circle is")


@holds(
    _VLLM, "`truncate_prompt_tokens` keeps the last tokens of a prompt, or the first with `truncation_side` of `right`."
)
def truncated(service: Service) -> bool:
    ids = service.tokens(prompt="one two three four five six")["tokens"]
    fields = {"truncate_prompt_tokens": 3, "return_token_ids": True, "max_tokens": 1}
    kept = [
        service.complete(ids, **fields, truncation_side=side).choice["prompt_token_ids"] for side in ("left", "right")
    ]
    return bool(kept == [ids[-3:], ids[:3]])


@holds(_IDS, "`return_token_ids` gives each choice the ids of its prompt and of its text.")
def token_ids(service: Service) -> bool:
    choice = service.complete(return_token_ids=True, max_tokens=3).choice  # what the demo says then is a control token
    said = service.post("/v1/detokenize", {"tokens": choice["token_ids"]}).body["prompt"]
    return choice["prompt_token_ids"] == _ids(service) and said.startswith(choice["text"])


@holds(_IDS, "In a stream the first event of a choice has those of the prompt.")
def streamed_token_ids(service: Service) -> bool:
    choices = service.complete(return_token_ids=True, stream=True).choices
    told = [choice.get("prompt_token_ids") for choice in choices]
    return told[0] == _ids(service) and not any(told[1:])


@holds(
    "vLLM test_completion_text_offset",
    "`text_offset` is the same in a stream and in a whole answer, also with a stop string.",
)
def offsets(service: Service) -> bool:
    fields = {"logprobs": 0, "stop": ["\n\n"], "max_tokens": 8}
    whole = service.complete(**fields).choice["logprobs"]["text_offset"]
    events = service.complete(**fields, stream=True).choices
    return [at for choice in events if choice["logprobs"] for at in choice["logprobs"]["text_offset"]] == whole


@holds(_LLAMA, "The same seed gives the same text, another seed another.")
def seeds(service: Service) -> bool:
    texts = [service.complete(temperature=1.5, max_tokens=24, seed=seed).choice["text"] for seed in (1, 1, 2, 3)]
    return texts[0] == texts[1] and len(set(texts)) > 1


@holds(_LLAMA, "Texts and token ids may be mixed among prompts.")
def mixed(service: Service) -> bool:
    choices = service.complete([_ids(service), "The circle is"]).body["choices"]
    return choices[0]["text"] == choices[1]["text"]


@holds(_LLAMA, "A prompt too long is a 400.")
def too_long(service: Service) -> bool:
    return service.complete("I believe the meaning of life is " * 4000).status == 400


def _llama(service: Service, **fields: Any) -> Any:
    body = {"prompt": "The circle is", "n_predict": 4, "temperature": 0, "ignore_eos": True, **fields}
    reply = service.post("/completion", body)
    return reply.events if fields.get("stream") else reply.body


@holds(_LLAMA, "`/completion` continues a prompt in llama.cpp's own shape, whole and in a stream.")
def llama_completion(service: Service) -> bool:
    whole, (*pieces, last) = _llama(service, return_tokens=True), _llama(service, stream=True)
    content = service.complete(max_tokens=4, ignore_eos=True).choice["text"]
    assert whole["content"] == content == "".join(each["content"] for each in pieces)
    assert whole["tokens"] == [token for each in pieces for token in each["tokens"]] and len(whole["tokens"]) == 4
    assert [each["stop"] for each in pieces] == [False] * len(pieces) and last["stop"] is True
    for each in (whole, last):
        timings = each["timings"]
        assert timings["predicted_n"] == 4 and timings["cache_n"] + timings["prompt_n"] == len(_ids(service))
        assert each["stop_type"] == "limit" and each["truncated"] is False and each["prompt"] == "The circle is"
        assert each["generation_settings"]["n_predict"] == 4 and isinstance(each["has_new_line"], bool)
    return _llama(service)["tokens"] == []


@holds(_LLAMA, "`n_probs` tells the likeliest tokens in each place of it, with ids and bytes.")
def llama_probabilities(service: Service) -> bool:
    fields = {"n_probs": 10, "n_predict": 2}  # what the demo says then is a control token, which is no text
    told = _llama(service, **fields)["completion_probabilities"]
    streamed = [
        each
        for event in _llama(service, **fields, stream=True)
        if not event["stop"]
        for each in event["completion_probabilities"]
    ]
    assert [each["id"] for each in streamed] == [each["id"] for each in told]
    entries = [entry for each in told for entry in (each, *each["top_logprobs"])]
    assert all(entry["logprob"] <= 0 and isinstance(entry["token"], str) and entry["bytes"] for entry in entries)
    return len(told) == 2 and all(len(each["top_logprobs"]) == 10 for each in told)


@holds(_LLAMA, "`response_fields` leaves out all others of it.")
def llama_fields(service: Service) -> bool:
    found = _llama(service, response_fields=["content", "generation_settings/n_predict", "prompt"])
    return len(found) == 3 and found["generation_settings/n_predict"] == 4 and found["prompt"] == "The circle is"


@holds(_LLAMA, "Several prompts of it are answered as a list.")
def llama_list(service: Service) -> bool:
    first, second = _llama(service, prompt=["The circle is", _ids(service)])
    return first["content"] == second["content"] and second["index"] == 1


@holds("llama.cpp test_ctx_shift", "`max_tokens` above the room is cut to it.")
def cut(service: Service) -> bool:
    return service.complete(max_tokens=10**6).status == 200


BEHAVIOURS: list[Behaviour] = [
    *behaviours_of(globals()),
    refused(_VLLM, "`logprobs` above 20 is refused.", TEXT, _asked(logprobs=21), "logprobs"),
    refused(_VLLM, "So it is in a stream.", TEXT, _asked(logprobs=30, stream=True), "logprobs"),
    refused(
        _VLLM,
        "`stream_options` without `stream` are refused.",
        TEXT,
        _asked(stream_options={"include_usage": True}),
        "stream_options",
    ),
    refused(
        _VLLM,
        "So they are with null in them.",
        TEXT,
        _asked(stream=False, stream_options={"continuous_usage_stats": None}),
        "stream_options",
    ),
    refused(
        _VLLM,
        "A schema with something that is no schema in it is refused.",
        TEXT,
        _asked(structured_outputs={"json": _WRONG}),
        "structured_outputs",
    ),
    refused(
        _VLLM,
        "A broken expression is refused.",
        TEXT,
        _asked(structured_outputs={"regex": "[.*"}),
        "structured_outputs",
    ),
    refused(
        _VLLM,
        "A broken grammar is refused.",
        TEXT,
        _asked(structured_outputs={"grammar": "root ::= other"}),
        "structured_outputs",
    ),
    refused(_PROMPTS, "A prompt of null is refused.", TEXT, _asked(prompt=None), "prompt"),
    refused("vLLM test_empty_prompt_list", "An empty list of prompts is refused.", TEXT, _asked(prompt=[]), "prompt"),
    answered("vLLM test_empty_prompt_list", "A list of one prompt is taken.", TEXT, _asked(prompt=["hello"])),
    refused(_PROMPTS, "A token id outside of the vocabulary is refused.", TEXT, _asked(prompt=[10**8]), "prompt"),
    refused(_PROMPTS, "An empty prompt is refused.", TEXT, _asked(prompt=""), "prompt"),
    answered("vLLM test_serving_completion", "`/completions` answers without `/v1`.", "/completions", _asked()),
    refused("vLLM test_completion", "`suffix` is refused.", TEXT, _asked(suffix="end"), "suffix"),
]
