"""POST /v1/chat/vision: images and a prompt in, an answer out, whole or streamed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, g, request

from gateway.api.body_reader import BodyReader
from gateway.api.error_handlers import problem_body
from gateway.api.handler import ChatHandler
from gateway.api.logprobs import as_openai
from gateway.chat.generation import Answer, Piece
from gateway.chat.service import Prepared
from gateway.schemas.form import read_vision
from gateway.settings import GatewaySettings
from gateway.streaming import sse
from glmserve.errors import GlmServeError
from glmserve.model.tokenizer import Tokenizer


def routes(settings: GatewaySettings, bodies: BodyReader, handler: ChatHandler) -> Blueprint:
    """The blueprint of this route."""
    blueprint = Blueprint("vision", __name__)

    @blueprint.post("/v1/chat/vision")
    def chat_vision() -> Response:
        asked = bodies.read_as(request, read_vision, request.mimetype, request.headers["Content-Type"])
        handler.check_model(asked.model)
        shape = VisionShape(settings.model_name, g.record.request_id, handler.service.tokenizer)
        return handler.respond(asked.conversation, shape, asked.is_stream, knows_all_fields=True)

    return blueprint


@dataclass(frozen=True)
class VisionShape:
    """`{"result": …, "model": …, "success": true}`; streamed, `{"delta": …}` per piece and then the same object."""

    model: str
    request_id: str
    tokenizer: Tokenizer

    def whole(self, prepared: Prepared, answer: Answer) -> dict[str, Any]:
        body: dict[str, Any] = {"result": answer.content, "model": self.model, "success": True}
        if answer.thinking:
            body["thinking"] = answer.thinking
        if answer.boxes:
            body["boxes"] = [box.as_json() for box in answer.boxes]
        if answer.logprobs:
            body["logprobs"] = as_openai(answer.logprobs, self.tokenizer)
        if prepared.prompt.videos:
            body["videos"] = list(prepared.prompt.videos)
        body["usage"] = usage(prepared, answer)
        body["finish_reason"] = answer.finish_reason
        if answer.timed_out:
            body["timed_out"] = True
        body["request_id"] = self.request_id
        body["timings"] = answer.timings
        return body

    def start(self, prepared: Prepared) -> Iterator[str]:
        return iter(())

    def piece(self, piece: Piece) -> Iterator[str]:
        if piece.thinking:
            yield sse.data({"thinking": piece.thinking})
        if piece.content:
            yield sse.data({"delta": piece.content})
        if piece.boxes:
            yield sse.data({"boxes": [box.as_json() for box in piece.boxes]})

    def end(self, prepared: Prepared, answer: Answer) -> Iterator[str]:
        yield sse.data(self.whole(prepared, answer))

    def failure(self, error: GlmServeError) -> Iterator[str]:
        yield sse.data(problem_body(error, self.request_id))


def usage(prepared: Prepared, answer: Answer) -> dict[str, int]:
    """The tokens of a prompt and its answer."""
    prompt_tokens = len(prepared.prompt.input_ids)
    return {
        "prompt_tokens": prompt_tokens,
        "image_tokens": prepared.prompt.image_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": prompt_tokens + answer.completion_tokens,
    }
