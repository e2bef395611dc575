"""POST /v1/tokenize and POST /v1/detokenize, in the shapes that vLLM gives them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import numpy as np
from flask import Blueprint, Response, jsonify, request
from numpy.typing import NDArray

from gateway.api.body_reader import BodyReader
from gateway.api.handler import ChatHandler
from gateway.api.tokens.body import DetokenizeBody, TokenizeBody, check_ids
from gateway.openapi.field_docs import Meaning
from gateway.openapi.operations import RouteDocs, asking
from gateway.openapi.responses import fields, said
from gateway.schemas.common import read_as
from gateway.schemas.conversation import Conversation
from gateway.schemas.messages import check_continued
from gateway.settings import GatewaySettings
from glmserve.errors import InvalidInput
from glmserve.sampling_parameters import Sampling

_COUNTING = Sampling(max_tokens=1)
_IDS_AT_A_TIME = 2048


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
        spelled = _spelled if read.return_token_strs else None
        return Response(_document(facts, prompt.input_ids, spelled), mimetype="application/json")

    def _spelled(token_id: int) -> str:
        return tokenizer.token_bytes(token_id).decode("utf-8", "replace")

    @blueprint.post("/v1/detokenize")
    def detokenize() -> Response:
        read = bodies.read_as(request, _ids)
        handler.check_model(read.model)
        check_ids(read.tokens, tokenizer.largest_id, "tokens")
        return jsonify(prompt=tokenizer.decode(read.tokens))

    return blueprint


def _document(facts: dict[str, int], input_ids: NDArray[np.int64], spelled: Callable[[int], str] | None) -> bytes:
    """The answer of /v1/tokenize, written a few ids at a time: hundreds of thousands would hold everybody up."""
    written = [json.dumps(facts)[:-1].encode(), b', "tokens": ', *_list(input_ids, int)]
    written += [b', "token_strs": ', *([b"null"] if spelled is None else _list(input_ids, spelled)), b"}\n"]
    return b"".join(written)


def _list(input_ids: NDArray[np.int64], item: Callable[[int], int | str]) -> Iterator[bytes]:
    for at in range(0, len(input_ids), _IDS_AT_A_TIME):
        items = [item(each) for each in input_ids[at : at + _IDS_AT_A_TIME].tolist()]
        yield (b", " if at else b"[") + json.dumps(items, ensure_ascii=False)[1:-1].encode()
    yield b"]" if len(input_ids) else b"[]"


def _ids(body: bytes) -> DetokenizeBody:
    return read_as(DetokenizeBody, body, "tokens")


def _counted(body: bytes, thinks_by_default: bool) -> tuple[TokenizeBody, Conversation]:
    read = read_as(TokenizeBody, body, "messages or prompt")
    return read, _conversation(read, thinks_by_default)


def _conversation(read: TokenizeBody, thinks_by_default: bool) -> Conversation:
    """What is counted; raises InvalidInput unless there is either a prompt or a conversation."""
    if (read.prompt is None) == (read.messages is None):
        raise InvalidInput("The request must have either messages or a prompt, and not both.", "messages")
    if read.prompt is not None:
        return Conversation((), _COUNTING, raw=read.prompt)
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
    meanings = {
        "messages": Meaning("The conversation, pictures included."),
        "prompt": Meaning("A text as it stands, instead of messages; control tokens written in it are such."),
        "tokens": Meaning("What to turn into text."),
        "return_token_strs": Meaning("Whether each token's text comes too.", False),
        "add_special_tokens": Meaning("Known for vLLM's clients' sake: this tokenizer adds none."),
    }
    return RouteDocs(
        {"/v1/tokenize": {"post": count}, "/v1/detokenize": {"post": text}},
        (TokenizeBody, DetokenizeBody),
        meanings,
        _ANSWERS,
    )


_ANSWERS = {
    "TokenCount": fields(
        *("count", "image_tokens", "max_model_len", "tokens"),
        count=said("integer", "Tokens of the whole prompt."),
        image_tokens=said("integer", "Those of its pictures."),
        max_model_len=said("integer", "Most tokens of prompt, pictures and answer."),
        tokens=said("array", "Their ids; one for each token of a picture.", items=said("integer")),
        token_strs={"type": ["array", "null"], "description": "Each token's text, where that was asked for."},
    ),
    "Detokenized": fields("prompt", prompt=said("string", "The text.")),
}
