"""POST /v1/completions: a text goes on as the model would have it go on."""

from __future__ import annotations

from flask import Blueprint, Response, g, request

from gateway.api.body_reader import BodyReader
from gateway.api.completions.answer import TextShape
from gateway.api.completions.body import Asked, TextBody, parse_text
from gateway.api.handler import ChatHandler
from gateway.openapi.field_docs import Meaning
from gateway.openapi.operations import RouteDocs, asking
from gateway.openapi.responses import MODEL_NAME, TIMINGS, USAGE, fields, said
from gateway.settings import GatewaySettings


def routes(settings: GatewaySettings, bodies: BodyReader, handler: ChatHandler, build_digest: str) -> Blueprint:
    """The blueprint of this route."""
    blueprint = Blueprint("text", __name__)
    tokenizer = handler.service.tokenizer

    def echoed(asked: Asked) -> tuple[str, ...]:
        """The text before each answer."""
        texts = [_text(conversation.raw) if asked.echoes else "" for conversation in asked.conversations]
        return tuple(text for text in texts for _ in range(asked.conversations[0].answers))

    def _text(prompt: str | tuple[int, ...] | None) -> str:
        return prompt if isinstance(prompt, str) else tokenizer.decode(list(prompt or ()))

    @blueprint.post("/v1/completions")
    def completions() -> Response:
        asked = bodies.read_as(request, parse_text)
        handler.check_model(asked.model)
        shape = TextShape(
            settings.model_name, build_digest, g.record.request_id, tokenizer, echoed(asked), asked.wanted
        )
        first, *others = asked.conversations
        return handler.respond(first, shape, asked.is_stream, others=tuple(others))

    return blueprint


def docs() -> RouteDocs:
    """What this route tells the OpenAPI document."""
    meanings = {
        "prompt": Meaning("What is continued, without the chat template; control tokens written in it are such."),
        "logprobs": Meaning("Tells each token's log-probability, and of how many others in its place."),
        "n": Meaning("How many answers each prompt has.", 1),
        "echo": Meaning("Whether the prompt stands before the answer.", False),
        "suffix": Meaning("Known for OpenAI's clients' sake."),
        "best_of": Meaning("How many answers are drawn."),
        "thinking": Meaning("Known from the chat routes."),
        "add_special_tokens": Meaning("Known for vLLM's clients' sake: this tokenizer adds none."),
    }
    operation = asking("Continue a text, without the chat template.", TextBody, "TextCompletion", streams=True)
    return RouteDocs({"/v1/completions": {"post": operation}}, (TextBody,), meanings, _ANSWERS, _EXAMPLES)


_ANSWERS = {
    "TextCompletion": fields(
        *("id", "object", "created", "model", "choices", "usage"),
        id=said("string", "Names the answer."),
        object={"const": "text_completion"},
        created=said("integer", "When, in seconds since 1970."),
        model=MODEL_NAME,
        choices=said("array", "Each prompt's answers: text, finish_reason and logprobs.", items={"type": "object"}),
        usage=USAGE,
        timings=TIMINGS,
    )
}
_EXAMPLES = {"TextBody": {"prompt": "The circle is", "max_tokens": 16, "temperature": 0}}
