"""POST /v1/responses and /v1/responses/input_tokens: what clients of OpenAI's newer SDKs use."""

from __future__ import annotations

from flask import Blueprint, Response, g, jsonify, request

from gateway.api.body_reader import BodyReader
from gateway.api.handler import ChatHandler
from gateway.api.responses.answer import ResponseShape
from gateway.api.responses.body import ResponsesBody, parse_response
from gateway.openapi.field_docs import Meaning
from gateway.openapi.operations import RouteDocs, asking
from gateway.openapi.responses import MODEL_NAME, USAGE, fields, said
from gateway.settings import GatewaySettings

PATH = "/v1/responses"


def routes(settings: GatewaySettings, bodies: BodyReader, handler: ChatHandler) -> Blueprint:
    """The blueprint of these routes."""
    blueprint = Blueprint("responses", __name__)

    @blueprint.post(PATH)
    def responses() -> Response:
        asked = bodies.read_as(request, parse_response, settings.thinking)
        handler.check_model(asked.read.model)
        shape = ResponseShape(settings.model_name, g.record.request_id, handler.service.tokenizer, asked)
        return handler.respond(asked.conversation, shape, bool(asked.read.stream))

    @blueprint.post(f"{PATH}/input_tokens")
    def input_tokens() -> Response:
        asked = bodies.read_as(request, parse_response, settings.thinking)
        handler.check_model(asked.read.model)
        counted = len(handler.count(asked.conversation).input_ids)
        return jsonify(object="response.input_tokens", input_tokens=counted)

    return blueprint


def docs() -> RouteDocs:
    """What these routes tell the OpenAPI document."""
    asked = asking("OpenAI's responses.", ResponsesBody, "Response", streams=True)
    counted = asking("Count the tokens of an input, images included.", ResponsesBody, "ResponseInputTokens")
    return RouteDocs(
        {PATH: {"post": asked}, f"{PATH}/input_tokens": {"post": counted}},
        (ResponsesBody,),
        _MEANINGS,
        _ANSWERS,
        {"ResponsesBody": {"input": "What colour is the sky?", "max_output_tokens": 64}},
    )


_KNOWN = Meaning("Known for OpenAI's clients' sake.")
_MEANINGS = {
    "input": Meaning("What is asked: a text, or the conversation so far as items."),
    "instructions": Meaning("What the model is told before the conversation."),
    "max_output_tokens": Meaning("The most tokens to generate, thoughts included.", 512),
    "tools": Meaning("Functions that the model may call."),
    "tool_choice": Meaning("Whether it may, must or must not call one, and which.", "auto"),
    "parallel_tool_calls": Meaning("Whether it may call several at once.", True),
    "text": Meaning("What the answer must look like."),
    "reasoning": Meaning("Whether the model thinks first, and whether its thoughts come as they are or as a summary."),
    "include": Meaning("What else is told: message.output_text.logprobs for each token's log-probability."),
    "top_logprobs": Meaning("Of how many of the likeliest tokens in each place the log-probability is told."),
    "enable_response_messages": Meaning(
        "Whether a finished response brings prompt and answer as texts and token ids, as vLLM's clients ask.", False
    ),
    "metadata": Meaning("Comes back with the answer."),
    "store": Meaning("Known for OpenAI's clients' sake: nothing is kept."),
    "user": _KNOWN,
    "stream_options": _KNOWN,
    "max_tool_calls": _KNOWN,
    "truncation": _KNOWN,
    "background": _KNOWN,
    "previous_response_id": _KNOWN,
    "conversation": _KNOWN,
    "prompt": _KNOWN,
}
_ANSWERS = {
    "Response": fields(
        *("id", "object", "created_at", "model", "status", "output", "usage"),
        id=said("string", "Names the answer."),
        object={"const": "response"},
        created_at=said("integer", "When, in seconds since 1970."),
        model=MODEL_NAME,
        status=said("string", "completed, or incomplete at max_output_tokens or the context's end."),
        output=said("array", "Items of type reasoning, message and function_call.", items={"type": "object"}),
        usage=USAGE,
        input_messages=said("array", "The prompt, where it was asked for.", items={"type": "object"}),
        output_messages=said("array", "The answer as it was drawn, where it was asked for.", items={"type": "object"}),
    ),
    "ResponseInputTokens": fields(
        *("object", "input_tokens"),
        object={"const": "response.input_tokens"},
        input_tokens=said("integer", "Tokens of the whole prompt."),
    ),
}
