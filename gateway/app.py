"""`create_app` is where the gateway's parts meet."""

from __future__ import annotations

from functools import partial

from flask import Flask, Response, g, request

from gateway import problems
from gateway.backend import Backend
from gateway.clients import ClientWatch
from gateway.exchange import Exchanges
from gateway.readiness import Canary, Readiness
from gateway.records import Record
from gateway.routes import completions, health, vision
from gateway.service import ChatService
from gateway.settings import GatewaySettings
from glmserve.manifest import MANIFEST_FILE, Manifest

CLIENTS = "clients"
"""The key in `app.extensions` of the watch over clients, which a worker's exit closes."""


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
    clients = app.extensions[CLIENTS] = ClientWatch()
    exchanges = Exchanges(settings, service, clients)
    created_s = int((settings.build / MANIFEST_FILE).stat().st_mtime)
    app.register_blueprint(vision.routes(settings, exchanges))
    app.register_blueprint(completions.routes(settings, exchanges, manifest.digest, created_s))
    app.register_blueprint(health.routes(settings, readiness, manifest.digest))
    return app


def _begin() -> None:
    g.record = Record(request.headers.get("X-Request-ID", ""))


def _end(response: Response) -> Response:
    record: Record = g.record
    response.headers["X-Request-ID"] = record.request_id
    route = request.url_rule.rule if request.url_rule else None
    end = partial(record.end, route, request.method, response.status_code)
    if response.is_streamed:
        response.call_on_close(end)
    else:
        end()
    return response
