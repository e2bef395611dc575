"""GET /health/live: this process runs. GET /health/ready: the service has just answered the canary."""

from __future__ import annotations

from flask import Blueprint, Response, g, jsonify

from gateway.api.error_handlers import RETRY_AFTER_S
from gateway.chat.readiness import Readiness
from gateway.settings import GatewaySettings


def routes(settings: GatewaySettings, readiness: Readiness, build_digest: str) -> Blueprint:
    """The blueprint of the probes."""
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/health/live")
    def live() -> Response:
        return jsonify(status="alive")

    @blueprint.get("/health/ready")
    def ready() -> Response:
        fault = readiness.fault()
        if fault is None:
            return jsonify(status="ready", model=settings.model_name, build=build_digest)
        g.record.facts["reason"] = fault
        response = jsonify(status="not ready", reason=fault)
        response.status_code = 503
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
        return response

    return blueprint
