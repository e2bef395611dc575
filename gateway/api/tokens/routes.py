"""POST /v1/tokenize and /v1/detokenize and GET /v1/tokenizer_info, in the shapes of vLLM, and /v1/apply-template, in
that of llama.cpp."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from flask import Blueprint, Response, jsonify, request
from numpy.typing import NDArray

from gateway.api.body_reader import BodyReader
from gateway.api.handler import ChatHandler
from gateway.api.tokens.answer import document
from gateway.api.tokens.body import DetokenizeBody, TokenizeBody, check_ids
from gateway.openapi.field_docs import Meaning
from gateway.openapi.operations import LOOKING, RouteDocs, asking, operation
from gateway.openapi.responses import fields, said
from gateway.schemas.common import read_as
from gateway.schemas.conversation import Conversation
from gateway.schemas.messages import check_continued
from gateway.schemas.openai import CompletionBody
from gateway.schemas.unknown_fields import read_knowing
from gateway.settings import GatewaySettings
from glmserve.errors import InvalidInput
from glmserve.sampling_parameters import Sampling

_COUNTING = Sampling(max_tokens=1)
_CLASS = "PreTrainedTokenizerFast"
"""What reads a tokenizer.json in transformers."""


def routes(settings: GatewaySettings, bodies: BodyReader, handler: ChatHandler) -> Blueprint:
    """The blueprint of these routes."""
    blueprint = Blueprint("tokens", __name__)
    tokenizer = handler.service.tokenizer

    @blueprint.post("/v1/tokenize")
    def tokenize() -> Response:
        read, counted = bodies.read_as(request, _counted, settings.thinking)
        handler.check_model(read.model)
        prompt = handler.count(counted)
        facts = {
            "count": len(prompt.input_ids),
            "image_tokens": prompt.image_tokens,
            "max_model_len": handler.service.context_tokens,
        }
        written = document(facts, prompt.input_ids, tokenizer, bool(read.with_pieces), bool(read.return_token_strs))
        return Response(written, mimetype="application/json")

    @blueprint.post("/v1/apply-template")
    def apply_template() -> Response:
        read, counted = bodies.read_as(request, _counted, settings.thinking)
        handler.check_model(read.model)
        return jsonify(prompt=handler.text_of(handler.count(counted).input_ids))

    @blueprint.post("/v1/detokenize")
    def detokenize() -> Response:
        model, ids = bodies.read_as(request, _ids, tokenizer.largest_id)
        handler.check_model(model)
        text = handler.text_of(ids)
        return jsonify(prompt=text, content=text)

    @blueprint.get("/v1/tokenizer_info")
    def tokenizer_info() -> Response:
        return jsonify(
            tokenizer_class=_CLASS,
            vocab_size=tokenizer.largest_id + 1,
            model_max_length=handler.service.context_tokens,
            added_tokens_decoder={
                str(token): {"content": text, "special": True} for token, text in tokenizer.control_texts.items()
            },
            chat_template=handler.service.chat_template,
        )

    return blueprint


def _ids(body: bytes, largest: int) -> tuple[str | None, NDArray[np.int64]]:
    """The model's name and the ids, which as an array are handed on in no time."""
    read = read_as(DetokenizeBody, body, "tokens")
    check_ids(read.tokens, largest, "tokens")
    return read.model, np.asarray(read.tokens, np.int64)


def _counted(body: bytes, thinks_by_default: bool) -> tuple[TokenizeBody, Conversation]:
    read, unknown = read_knowing(TokenizeBody, body, "messages or prompt", CompletionBody)
    return read, replace(_conversation(read, thinks_by_default), unknown=unknown)


def _conversation(read: TokenizeBody, thinks_by_default: bool) -> Conversation:
    """What is counted; raises InvalidInput unless there is either a prompt or a conversation."""
    raw = read.content if read.prompt is None else read.prompt
    if (raw is None) == (read.messages is None) or None not in (read.prompt, read.content):
        raise InvalidInput("The request must have one of messages, prompt and content.", "messages")
    if raw is not None:
        return Conversation((), _COUNTING, raw=raw)
    asked, turns = read.thinks(), read.turns()
    if read.continue_final_message:
        check_continued(turns[-1], bool(read.add_generation_prompt))
    return Conversation(
        turns,
        _COUNTING,
        thinking=thinks_by_default if asked is None else asked,
        tools=tuple(tool.described() for tool in read.tools or ()),
        prompt_field="messages",
        asks=read.add_generation_prompt is not False and not read.continue_final_message,
        continues=bool(read.continue_final_message),
    )


def docs() -> RouteDocs:
    """What these routes tell the OpenAPI document."""
    count = asking("Turn a conversation or a text into token ids, and count them.", TokenizeBody, "TokenCount")
    text = asking("Turn token ids into their text.", DetokenizeBody, "Detokenized")
    prompt = asking("Turn a conversation into the text of its prompt.", TokenizeBody, "Prompt")
    described = operation(
        "The tokenizer's vocabulary, control tokens and chat template.", "Tokenizer", LOOKING, "Problem"
    )
    meanings = {
        "messages": Meaning("The conversation, images included."),
        "prompt": Meaning("A text as it stands, instead of messages; control tokens written in it are such."),
        "tokens": Meaning("What to turn into text."),
        "return_token_strs": Meaning("Whether each token's text comes too.", False),
        "content": Meaning("The same as prompt, as llama.cpp's clients name it."),
        "with_pieces": Meaning("Whether each of tokens is an object of id and piece, as in llama.cpp.", False),
        "add_special_tokens": Meaning("Known for vLLM's clients' sake: this tokenizer adds none."),
        "add_special": Meaning("Known for llama.cpp's clients' sake, as add_special_tokens."),
    }
    return RouteDocs(
        {
            "/v1/tokenize": {"post": count},
            "/v1/detokenize": {"post": text},
            "/v1/apply-template": {"post": prompt},
            "/v1/tokenizer_info": {"get": described},
        },
        (TokenizeBody, DetokenizeBody),
        meanings,
        _ANSWERS,
        {"TokenizeBody": {"prompt": "What colour is the circle?"}, "DetokenizeBody": {"tokens": [72, 105]}},
    )


_ANSWERS = {
    "TokenCount": fields(
        *("count", "image_tokens", "max_model_len", "tokens"),
        count=said("integer", "Tokens of the whole prompt."),
        image_tokens=said("integer", "Those of its images."),
        max_model_len=said("integer", "Most tokens of prompt, images and answer."),
        tokens={
            "type": "array",
            "description": "Their ids; one for each token of an image. Or objects of id and piece.",
        },
        token_strs={"type": ["array", "null"], "description": "Each token's text, where that was asked for."},
    ),
    "Detokenized": fields(
        *("prompt", "content"),
        prompt=said("string", "The text."),
        content=said("string", "The same, as llama.cpp's clients read it."),
    ),
    "Prompt": fields("prompt", prompt=said("string", "The text.")),
    "Tokenizer": fields(
        *("tokenizer_class", "vocab_size", "model_max_length", "added_tokens_decoder", "chat_template"),
        tokenizer_class=said("string", "The class of transformers that reads it."),
        vocab_size=said("integer", "Its largest id and one more."),
        model_max_length=said("integer", "Most tokens of prompt, images and answer."),
        added_tokens_decoder=said("object", "Its control tokens by id, each with content and special."),
        chat_template=said("string", "The template that makes a prompt of a conversation, in Jinja."),
    ),
}
