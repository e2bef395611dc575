"""GET /metrics: the gateway's metrics in Prometheus' format."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response

from gateway.observability.metrics import CONTENT_TYPE, Metrics


def routes(metrics: Metrics, count_up: Callable[[], int]) -> Blueprint:
    """The blueprint of this route; `count_up` tells how many Tritons are up now."""
    blueprint = Blueprint("metrics", __name__)

    @blueprint.get("/metrics")
    def page() -> Response:
        metrics.tritons_up(count_up())
        return Response(metrics.page(), content_type=CONTENT_TYPE)

    return blueprint
