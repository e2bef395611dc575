"""`create_app` is where the gateway's parts meet."""

from __future__ import annotations

import re
import time
import uuid

import structlog
from flask import Flask, Response, g, request

from gateway import problems
from gateway.backend import Backend
from gateway.readiness import Canary, Readiness
from gateway.routes import health, vision
from gateway.service import ChatService
from gateway.settings import GatewaySettings
from glmserve.manifest import Manifest

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def create_app(settings: GatewaySettings, backend: Backend) -> Flask:
    """The web application for one build; raises BadArtifact if the build is not whole. The caller closes `backend`."""
    manifest = Manifest.read(settings.build)
    service = ChatService(settings, backend)
    readiness = Readiness(
        service, backend, Canary.read(settings.build), settings.canary_timeout_s, settings.canary_cache_s
    )
    app = Flask("gateway", static_folder=None)
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.before_request(_begin)
    app.after_request(_end)
    problems.register(app)
    app.register_blueprint(vision.routes(settings, service))
    app.register_blueprint(health.routes(settings, readiness, manifest.digest))
    return app


def _begin() -> None:
    g.started_s = time.monotonic()
    sent = request.headers.get("X-Request-ID", "")
    g.request_id = sent if _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
    g.facts = {}


def _end(response: Response) -> Response:
    """One log event a request: what happened and how long it took, never what was asked or shown."""
    response.headers["X-Request-ID"] = g.request_id
    structlog.get_logger().info(
        "request_end",
        request_id=g.request_id,
        route=request.url_rule.rule if request.url_rule else None,
        method=request.method,
        status=response.status_code,
        error=g.get("error_code"),
        ms=round((time.monotonic() - g.started_s) * 1000, 1),
        **g.facts,
    )
    return response
