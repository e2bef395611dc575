"""GET /metrics: the gateway's metrics in Prometheus' format."""

from __future__ import annotations

from flask import Blueprint, Response

from gateway.observability.metrics import CONTENT_TYPE, Metrics


def routes(metrics: Metrics) -> Blueprint:
    """The blueprint of this route."""
    blueprint = Blueprint("metrics", __name__)

    @blueprint.get("/metrics")
    def page() -> Response:
        return Response(metrics.page(), content_type=CONTENT_TYPE)

    return blueprint
