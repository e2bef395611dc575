"""What other servers' tests ask for and this service does not do, each with its reason."""

from __future__ import annotations

from behaviours.listed import Declined

_PROMPT_LOGPROBS = "only tokens of the answer have log-probabilities; the field is refused"
_BEAMS = "answers are sampled; `use_beam_search` is refused, `n` gives several"

DECLINED: list[Declined] = [
    Declined("vLLM test_chat", "`prompt_logprobs` tells the log-probabilities of the prompt.", _PROMPT_LOGPROBS, 2),
    Declined(
        "vLLM test_completion", "So do `prompt_logprobs` and `echo` with `logprobs` for a text.", _PROMPT_LOGPROBS, 2
    ),
    Declined(
        "vLLM test_vision, test_video, test_completion", "`use_beam_search` gives the likeliest answers.", _BEAMS, 3
    ),
    Declined(
        "vLLM test_chat",
        "The last chunk of a stream holds text and `finish_reason` together.",
        "the last chunk has an empty `delta`, as OpenAI's",
    ),
    Declined(
        "vLLM test_sampling_params", "A `seed` of -1 is one like any other.", "it is an absent one, as in llama.cpp"
    ),
    Declined(
        "vLLM test_sampling_params",
        "`n` above 1 is refused with a `temperature` of 0.",
        "it is answered, with the same answer several times",
    ),
    Declined("vLLM test_chat", "Any role is accepted.", "a role that no template knows is a mistake, and is named"),
    Declined(
        "vLLM test_vision",
        "An image is found again by its `uuid`.",
        "images are found by their pixels, and sent each time",
    ),
    Declined(
        "vLLM test_vision, test_video",
        "`image_url` or `video_url` as a plain string is refused.",
        "it says all that is needed, and clients send it",
        2,
    ),
    Declined(
        "vLLM test_chat_completion_request_validations",
        "`tools` of [] are refused.",
        "an empty list is an absent field",
    ),
    Declined(
        "vLLM test_anthropic_messages_conversion", '`cache_salt` of "" is refused.', "an empty text is an absent field"
    ),
    Declined(
        "vLLM test_anthropic_messages_conversion",
        "A `budget_tokens` that is missing, below 1024 or not below `max_tokens` is refused.",
        "it sets no bound of its own here, and llama.cpp's tests send 50",
    ),
    Declined(
        "vLLM test_tokenization",
        "`/detokenize` gives the prompt back, and nothing else.",
        "`content` beside it says the same to llama.cpp's clients",
    ),
    Declined(
        "vLLM test_stateful",
        "Responses are kept, go on by id, and run in the background.",
        "nothing is kept; each of the fields is refused",
        3,
    ),
    Declined(
        "vLLM test_metrics",
        "Metrics have the names of vLLM.",
        "they have names of their own, in [engine.md](engine.md)",
    ),
    Declined("llama.cpp test_chat_completion", "The first chunk has `content` of null.", 'it has "", as OpenAI\'s'),
    Declined(
        "llama.cpp test_chat_completion",
        "`logprobs` spell `content` letter by letter.",
        "they list the tokens as drawn, and `content` has no white space at its ends",
    ),
    Declined(
        "llama.cpp test_chat_completion",
        "A last message of the assistant is gone on with.",
        "only with `continue_final_message`, as in vLLM",
    ),
    Declined(
        "llama.cpp test_chat_completion",
        "Two messages of the assistant in a row are refused.",
        "agents send them, and the template takes them",
    ),
    Declined(
        "llama.cpp test_chat_completion",
        "`return_progress` tells how much of a prompt is read.",
        "a comment line each five seconds keeps a stream alive",
    ),
    Declined("llama.cpp test_compat_anthropic", "`messages` of [] are answered.", "Anthropic's own API refuses them"),
    Declined(
        "llama.cpp test_security", "Any site's page may call the service.", "only those of `GLM_GATEWAY_CORS_ORIGINS`"
    ),
    Declined(
        "llama.cpp test_security", "`/models` needs no key.", "it names the build, so it needs one, as vLLM's tests ask"
    ),
    Declined(
        "llama.cpp test_vision_api",
        "Files of a folder of the server are read as images.",
        "clients send images, or URLs of allowed hosts",
    ),
    Declined(
        "llama.cpp test_vision_api", "A text goes on after images (`multimodal_data`).", "the chat routes take images"
    ),
]
"""Not counted are tests of what this service is not: embeddings, reranking, speech, LoRA, saved slots, and routers."""
