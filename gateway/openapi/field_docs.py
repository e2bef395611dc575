"""What each field of a request means, and what stands for it where it is left out: for /docs and /openapi.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from glmserve.sampling_parameters import PARAMETERS

_SAME = "Another name of {}."


@dataclass(frozen=True)
class Meaning:
    """A sentence or two, and the value that stands for an absent field; None is no such value."""

    text: str
    default: Any = None


_SAMPLING = {
    name: Meaning(parameter.meaning, parameter.documented_default)
    if name == parameter.name
    else Meaning(_SAME.format(parameter.name))
    for parameter in PARAMETERS
    for name in parameter.request_names
}

MEANINGS = {
    "image": Meaning("The image: JPEG, PNG, WebP, AVIF, BMP or GIF (first frame)."),
    "messages": Meaning("The conversation so far; the last message asks."),
    "prompt_token_ids": Meaning("The whole prompt as the chat template would make it, instead of messages."),
    "prompt": Meaning("The question."),
    "images": Meaning("Several images in the order they are read, beside or instead of image."),
    "video": Meaning("A video, or its frames and their times, beside or instead of image."),
    "question": Meaning(_SAME.format("prompt")),
    "text": Meaning(_SAME.format("prompt")),
    "system": Meaning("What the model is told before the question."),
    "model": Meaning("Which model is asked; there is one here, and no need to name it."),
    "stream": Meaning("Whether the answer comes in pieces while it is generated, as server-sent events.", False),
    "stream_options": Meaning(
        "With include_usage a last chunk of the stream tells the usage; with continuous_usage_stats beside it each "
        "chunk tells the usage so far."
    ),
    **_SAMPLING,
    "stop": Meaning("Text that ends the answer, which stops before it."),
    "stop_token_ids": Meaning("Tokens that end the answer."),
    "response_format": Meaning(
        "What the answer must look like: free text, JSON, or text that matches a schema, a regular expression or a "
        "grammar.",
        {"type": "text"},
    ),
    "structured_outputs": Meaning("The same as vLLM's clients ask for it."),
    "guided_json": Meaning("A schema that the answer matches, as older clients of vLLM ask for it."),
    "guided_regex": Meaning("A regular expression that the answer matches, as older clients of vLLM ask for it."),
    "guided_choice": Meaning("Texts of which the answer is one, as older clients of vLLM ask for it."),
    "guided_grammar": Meaning("A grammar that the answer matches, as older clients of vLLM ask for it."),
    "json_schema": Meaning("A schema that the answer matches, as clients of llama.cpp ask for it."),
    "regex": Meaning("A regular expression that the answer matches, as clients of SGLang ask for it."),
    "grammar": Meaning("A grammar that the answer matches, as clients of llama.cpp ask for it."),
    "ebnf": Meaning("The same for clients of SGLang."),
    "thinking": Meaning("Whether the model thinks first; its thoughts come apart from the answer.", False),
    "chat_template_kwargs": Meaning("The same switch as vLLM's clients set it."),
    "tools": Meaning("Functions that the model may call."),
    "tool_choice": Meaning(
        'Whether it may, must ("required", or a function by name) or must not ("none" leaves tools out).', "auto"
    ),
    "parallel_tool_calls": Meaning("Whether an answer may make several calls.", True),
    "n": Meaning("How many answers, each with the next seed; the prompt is read once.", 1),
    "logit_bias": Meaning("What is added to the logits of tokens; -100 bans one, 100 takes it."),
    "bad_words": Meaning("Words that the answer may not hold."),
    "allowed_token_ids": Meaning("The only tokens that the answer may hold."),
    "include_stop_str_in_output": Meaning("Whether the stop string that ended the answer is part of it.", False),
    "skip_special_tokens": Meaning("Whether control tokens in the answer are left out of its text.", True),
    "truncate_prompt_tokens": Meaning("How many tokens of the prompt are kept; for prompts of text."),
    "return_tokens_as_token_ids": Meaning("Whether log-probabilities name tokens by their ids: token_id:40.", False),
    "truncation_side": Meaning("On which side tokens of the prompt are left out.", "left"),
    "mm_processor_kwargs": Meaning(
        "The fewest and the most pixels of each image as the model sees it, counted twice, as the checkpoint does; "
        "and which frames of each video are seen."
    ),
    "media_io_kwargs": Meaning("Which frames of each video are seen, as vLLM's clients say it."),
    "cache_salt": Meaning("Keeps cached prompts and images for requests with this same salt."),
    "enable_thinking": Meaning("Another name of thinking, which counts more."),
    "reasoning_effort": Meaning("The same switch as OpenAI's clients set it: none and minimal do not think."),
    "include_reasoning": Meaning("Whether thoughts come with the answer.", True),
    "echo": Meaning("Whether the answer begins with the last message, where that is the assistant's.", False),
    "add_generation_prompt": Meaning("Whether the prompt ends with the beginning of an answer.", True),
    "continue_final_message": Meaning("Whether the answer goes on with the last message, an assistant's.", False),
    "return_token_ids": Meaning("Whether the ids of the prompt's and the answer's tokens come too.", False),
    "timings_per_token": Meaning("Whether each chunk of a stream tells the pace so far, as llama.cpp does.", False),
    "return_video_frames": Meaning("Whether small JPEGs of the frames that are seen come with the answer.", False),
    "partial_on_timeout": Meaning(
        "Whether an answer whose time runs out is cut there, with timed_out: true, instead of failing with a 504.",
        False,
    ),
}
"""In the order in which they are shown: first what must be there."""


def explained(schema: dict[str, Any], meanings: dict[str, Meaning]) -> dict[str, Any]:
    """A body's schema whose fields stand in the order of `meanings` and say what they mean, must be, and default to."""
    fields = schema["properties"]
    shown = {name: _explained(fields[name], meaning) for name, meaning in meanings.items() if name in fields}
    return {**schema, "properties": shown}


def _explained(field: dict[str, Any], meaning: Meaning) -> dict[str, Any]:
    kept = {key: value for key, value in field.items() if key not in ("title", "default")}
    kept["description"] = f"{meaning.text} It must be {field['description']}."
    return kept if meaning.default is None else {**kept, "default": meaning.default}
