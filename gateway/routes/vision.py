"""POST /v1/chat/vision: a picture and a prompt in, an answer out."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, g, jsonify, request

from gateway.bodies import read_body
from gateway.schemas import parse_question
from gateway.service import Answer, ChatService, Deadline, Prepared
from gateway.settings import GatewaySettings


def routes(settings: GatewaySettings, service: ChatService) -> Blueprint:
    """The blueprint with this one address."""
    blueprint = Blueprint("vision", __name__)

    @blueprint.post("/v1/chat/vision")
    def chat_vision() -> Response:
        body = read_body(request, settings.max_body_bytes, settings.body_timeout_s)
        question = parse_question(body)
        deadline = Deadline.after(settings.deadline_s)
        prepared = service.prepare(question, deadline)
        g.facts |= _prepared_facts(prepared)
        answer = service.answer(prepared, g.request_id, deadline)
        g.facts |= {"completion_tokens": answer.completion_tokens, "finish_reason": answer.finish_reason}
        return jsonify(_body(settings.model_name, prepared, answer))

    return blueprint


def _prepared_facts(prepared: Prepared) -> dict[str, Any]:
    width, height = prepared.image_size
    return {
        "image_width": width,
        "image_height": height,
        "prompt_tokens": len(prepared.input_ids),
        "image_tokens": prepared.image_tokens,
    }


def _body(model: str, prepared: Prepared, answer: Answer) -> dict[str, Any]:
    prompt_tokens = len(prepared.input_ids)
    body: dict[str, Any] = {"result": answer.content, "model": model, "success": True}
    if answer.thinking:
        body["thinking"] = answer.thinking
    body["usage"] = {
        "prompt_tokens": prompt_tokens,
        "image_tokens": prepared.image_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": prompt_tokens + answer.completion_tokens,
    }
    body["finish_reason"] = answer.finish_reason
    body["request_id"] = g.request_id
    return body
