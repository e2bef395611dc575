"""Fields that other servers have: those that change no answer here are passed over, the others are refused by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Declined:
    """A field that we know and do not have: the values that ask for nothing, and what to do instead."""

    remedy: str
    neutral: tuple[Any, ...] = ()

    def asks_for_nothing(self, value: Any) -> bool:
        return value in (None, "", [], {}) or any(
            value == other and type(value) is type(other) for other in self.neutral
        )


CHANGE_NOTHING = {
    "user": "who asks, for the service's own records",
    "metadata": "labels of OpenAI's dashboard",
    "store": "OpenAI's storing of answers; nothing is stored here",
    "service_tier": "OpenAI's price list",
    "safety_identifier": "who asks, for OpenAI",
    "prompt_cache_key": "a hint for OpenAI's caches; prefixes are always cached here",
    "prompt_cache_retention": "how long OpenAI caches; prefixes are always cached here",
    "prediction": "a hint that makes OpenAI faster",
    "request_id": "the header X-Request-ID names a request here",
    "session_id": "a hint for the routers of other servers",
    "guided_decoding_backend": "there is one, which knows every kind of rule",
    "cache_prompt": "prefixes are always cached here",
    "spaces_between_special_tokens": "this tokenizer's tokens bring their own blanks",
    "return_token_offsets": "vLLM's render routes only",
    "return_mm_kwargs": "vLLM's render routes only",
    "return_progress": "a stream's comments say that the prompt is still read",
    "stream_interval": "tokens that gather while others are sent go into one chunk anyway",
}
"""Each with what it says to whom; a request may hold them on either chat route."""

_TEMPLATE = "the checkpoint's own chat template is used"
_ONE_DECODER = "this service has one decoder and no others to hand its KV to"
_SAMPLERS = "use temperature, top_k, top_p and min_p"
_LLAMA_REPEATS = "use repetition_penalty, frequency_penalty and presence_penalty"
_SPEAKS = "answers are text only"

DECLINED = {
    "prompt_logprobs": Declined("only tokens of the answer have log-probabilities: use logprobs"),
    "logprob_token_ids": Declined("use top_logprobs, which tells the likeliest tokens"),
    "return_prompt_text": Declined("send the request to /v1/tokenize for the prompt's tokens", (False,)),
    "routed_experts_prompt_start": Declined("this model has no experts", (0,)),
    "thinking_token_budget": Declined("bound thoughts and answer together with max_tokens"),
    "use_beam_search": Declined("answers are sampled: use n for several", (False,)),
    "best_of": Declined("use n and choose among the answers", (1,)),
    "length_penalty": Declined("it belongs to beam search, which is not here", (1, 1.0)),
    "early_stopping": Declined("it belongs to beam search, which is not here", (False,)),
    "watermarking": Declined("answers bear no watermark", (False,)),
    "repetition_detection": Declined("use repetition_penalty or frequency_penalty"),
    "priority": Declined("requests are answered in the order they come", (0,)),
    "add_special_tokens": Declined("the chat template has its special tokens already", (False,)),
    "documents": Declined("put the documents into a message"),
    "chat_template": Declined(_TEMPLATE),
    "kv_transfer_params": Declined(_ONE_DECODER),
    "ec_transfer_params": Declined(_ONE_DECODER),
    "vllm_xargs": Declined("there are no extensions that read it"),
    "logits_processors": Declined("use logit_bias, bad_words or allowed_token_ids"),
    "logit_processors": Declined("use logit_bias, bad_words or allowed_token_ids"),
    "guided_whitespace_pattern": Declined("JSON has one blank at most after each comma and colon"),
    "functions": Declined("use tools"),
    "function_call": Declined("use tool_choice", ("none",)),
    "modalities": Declined(_SPEAKS, (["text"],)),
    "audio": Declined(_SPEAKS),
    "web_search_options": Declined("nothing is looked up: offer a tool that does"),
    "verbosity": Declined("say in the prompt how long the answer should be", ("medium",)),
    "reasoning": Declined("use thinking or reasoning_effort"),
    "prompt_embeds": Declined("send text and images"),
    "enable_response_messages": Declined("send the request to /v1/tokenize for the prompt's tokens", (False,)),
    "n_predict": Declined("use max_tokens"),
    "n_probs": Declined("use logprobs and top_logprobs", (0,)),
    "min_keep": Declined(_SAMPLERS, (0, 1)),
    "samplers": Declined(_SAMPLERS),
    "typical_p": Declined(_SAMPLERS, (1, 1.0)),
    "tfs_z": Declined(_SAMPLERS, (1, 1.0)),
    "top_n_sigma": Declined(_SAMPLERS, (-1, -1.0)),
    "mirostat": Declined(_SAMPLERS, (0,)),
    "dynatemp_range": Declined(_SAMPLERS, (0, 0.0)),
    "xtc_probability": Declined(_SAMPLERS, (0, 0.0)),
    "dry_multiplier": Declined(_LLAMA_REPEATS, (0, 0.0)),
    "repeat_penalty": Declined("use repetition_penalty", (1, 1.0)),
    "repeat_last_n": Declined(_LLAMA_REPEATS),
    "id_slot": Declined("requests have no slot of their own; a prompt's cached beginning is found by itself", (-1,)),
    "lora": Declined("there is one model here, without adapters"),
}
"""Of vLLM's, OpenAI's and llama.cpp's chat routes; the sentence that refuses one ends with its remedy."""
