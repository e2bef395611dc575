"""What OpenTelemetry's conventions for generative AI call the facts of a request."""

from __future__ import annotations

from typing import Any

PROVIDER = "glm_triton"
_TEXT_ROUTES = ("/v1/completions", "/v1/completion")
_NAMES = {
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "max_tokens": "gen_ai.request.max_tokens",
}


def gen_ai_attributes(route: str, model: str, facts: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a request that asked the model; none for any other."""
    if "prompt_tokens" not in facts:
        return {}
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": "text_completion" if route in _TEXT_ROUTES else "chat",
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": model,
        "gen_ai.response.model": model,
        "gen_ai.output.type": "text",
    }
    attributes |= {name: facts[fact] for fact, name in _NAMES.items() if fact in facts}
    if "finish_reason" in facts:
        attributes["gen_ai.response.finish_reasons"] = [facts["finish_reason"]]
    return attributes
