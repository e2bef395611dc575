"""POST /completion, GET /props and GET /slots, in the shapes of llama.cpp."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify, request

from gateway import VERSION
from gateway.api.body_reader import BodyReader
from gateway.api.handler import ChatHandler
from gateway.api.llama_cpp.answer import LlamaShape
from gateway.api.llama_cpp.body import LlamaBody, parse_completion_of_llama
from gateway.openapi.field_docs import Meaning
from gateway.openapi.operations import LOOKING, RouteDocs, asking, operation
from gateway.openapi.responses import MODEL_NAME, fields, said
from gateway.settings import GatewaySettings
from glmserve.sampling_parameters import PARAMETERS

_OF_COMPLETIONS = (
    *("echo", "suffix", "best_of", "thinking", "add_special_tokens", "stream_options"),
    *("return_token_ids", "return_tokens_as_token_ids"),
)


def routes(settings: GatewaySettings, bodies: BodyReader, handler: ChatHandler, slots: int) -> Blueprint:
    """The blueprint of these routes; `slots` is how many requests this worker takes at once."""
    blueprint = Blueprint("llama_cpp", __name__)
    service = handler.service
    properties: dict[str, Any] = {
        "default_generation_settings": {"n_ctx": service.context_tokens, "params": _defaults()},
        "total_slots": slots,
        "model_path": settings.model_name,
        "model_alias": settings.model_name,
        "chat_template": service.chat_template,
        "modalities": {"vision": True, "audio": False, "video": service.takes_videos},
        "build_info": VERSION,
    }

    @blueprint.post("/v1/completion")
    def completion() -> Response:
        asked = bodies.read_as(request, parse_completion_of_llama)
        handler.check_model(asked.model)
        shape = LlamaShape(settings.model_name, service.tokenizer, asked)
        first, *others = asked.conversations
        return handler.respond(first, shape, asked.is_stream, others=tuple(others))

    @blueprint.get("/v1/props")
    def props() -> Response:
        return jsonify(properties)

    @blueprint.get("/v1/slots")
    def busy_slots() -> Response:
        running, _, _ = handler.admission.counts()
        return jsonify([{"id": i, "n_ctx": service.context_tokens, "is_processing": i < running} for i in range(slots)])

    return blueprint


def _defaults() -> dict[str, Any]:
    """What stands for the fields that a request to /completion leaves out, by llama.cpp's names."""
    told = {entry.name: entry.documented_default for entry in PARAMETERS}
    told["n_predict"], told["repeat_penalty"] = told.pop("max_tokens"), told.pop("repetition_penalty")
    told["n_probs"] = told.pop("top_logprobs")
    del told["logprobs"]
    return told | {"seed": -1}


def docs() -> RouteDocs:
    """What these routes tell the OpenAPI document."""
    meanings = {
        "prompt": Meaning("What is continued, without the chat template; control tokens written in it are such."),
        "n_predict": Meaning("The most tokens to generate, as llama.cpp's clients name it."),
        "n_probs": Meaning("Of how many tokens in each place the log-probability is told.", 0),
        "return_tokens": Meaning("Whether a whole answer brings its token ids; a streamed one always does.", False),
        "response_fields": Meaning("The only fields of the answer that come; a slash leads into an object."),
        "repeat_penalty": Meaning("Another name of repetition_penalty."),
        "logprobs": Meaning("Another name of n_probs, which counts more."),
        "n": Meaning("How many answers each prompt has.", 1),
    }
    known = dict.fromkeys(_OF_COMPLETIONS, Meaning("Known from /v1/completions."))
    told = asking(
        "Continue a text, as llama.cpp's clients ask and read it.", LlamaBody, "LlamaCompletion", streams=True
    )
    props = operation("What is served, and the defaults of requests.", "Props", LOOKING, "Problem")
    slots = operation(
        "The requests that this worker takes at once, and which of them run.", "Slots", LOOKING, "Problem"
    )
    paths = {"/v1/completion": {"post": told}, "/v1/props": {"get": props}, "/v1/slots": {"get": slots}}
    return RouteDocs(paths, (LlamaBody,), meanings | known, _ANSWERS, _EXAMPLES)


_FIELDS = {
    "index": said("integer", "Which of the answers this is; several come as a list."),
    "content": said("string", "The text."),
    "tokens": said("array", "Its token ids, where return_tokens was sent.", items=said("integer")),
    "stop": said("boolean", "Whether this is the end of the answer."),
    "model": MODEL_NAME,
    "stop_type": said("string", "eos, limit or word: what ended it."),
    "generation_settings": said("object", "The fields that it was generated with."),
    "timings": said("object", "Tokens and milliseconds of prompt and answer, and tokens a second."),
}
"""Of an answer of /completion; a request may leave some out."""
_ANSWERS = {
    "LlamaCompletion": {
        "type": ["object", "array"],
        "items": {"type": "object"},
        "properties": _FIELDS,
    },
    "Props": fields(
        *("default_generation_settings", "total_slots", "model_alias", "chat_template", "modalities"),
        default_generation_settings=said("object", "The context's tokens (n_ctx), and the defaults (params)."),
        total_slots=said("integer", "How many requests this worker takes at once."),
        model_alias=MODEL_NAME,
        chat_template=said("string", "The template that makes a prompt of a conversation, in Jinja."),
        modalities=said("object", "Whether images, videos and sound are taken."),
    ),
    "Slots": said("array", "Each with id, n_ctx and is_processing.", items={"type": "object"}),
}
_EXAMPLES = {"LlamaBody": {"prompt": "The circle is", "n_predict": 16, "temperature": 0}}
