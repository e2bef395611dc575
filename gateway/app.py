"""`create_app` is where the gateway's parts meet."""

from __future__ import annotations

from functools import partial

from flask import Flask, Response, g, request

from gateway.api import chat_completions, error_handlers, headers, health, vision, web_ui
from gateway.api import metrics_route as metrics_route
from gateway.api.body_reader import BodyReader
from gateway.api.handler import ChatHandler
from gateway.chat.readiness import Canary, Readiness
from gateway.chat.service import ChatService
from gateway.limits.admission import Admission
from gateway.limits.auth import Authenticator, is_local
from gateway.limits.rate_limit import RateLimitCounters, RateLimiter
from gateway.observability.audit import AuditLog
from gateway.observability.metrics import Metrics
from gateway.observability.request_hooks import RequestHooks
from gateway.observability.request_record import RequestRecord
from gateway.observability.tracing import Tracing
from gateway.resources import AUDIT, BODIES, DECODERS, DISCONNECTS, TRACING
from gateway.settings import GatewaySettings
from gateway.streaming.disconnects import DisconnectWatcher
from gateway.triton.backend import Backend
from glmserve.build.manifest import MANIFEST_FILE, Manifest

_WATCHED = "/health/"  # whoever watches the service is never refused
_SPARE_SHARE = 8  # of the threads, so that there is always one to refuse with


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
    clients = app.extensions[DISCONNECTS] = DisconnectWatcher()
    bodies = app.extensions[BODIES] = BodyReader(
        settings.max_body_bytes, settings.max_json_bytes, settings.body_timeout_s
    )
    app.extensions[DECODERS] = service.decoders
    quotas = RateLimiter(settings, RateLimitCounters(settings.redis_url))
    places = max(1, settings.threads - max(1, settings.threads // _SPARE_SHARE))
    admission = Admission(settings.admission_tokens, places, settings.max_waiting)
    metrics = Metrics(settings.metrics_folder)
    tracing = app.extensions[TRACING] = Tracing.to(settings.otlp_endpoint)
    handler = ChatHandler(settings, service, clients, quotas, admission, metrics)
    audit = app.extensions[AUDIT] = AuditLog(settings.audit_file) if settings.audit_file else None
    watch = RequestHooks(tracing, metrics, admission, manifest.digest, audit)
    app.before_request(watch.begin)
    app.before_request(partial(_let_in, Authenticator(settings), quotas))
    app.after_request(partial(_finish, settings.cors_origins))
    app.after_request(watch.end)
    error_handlers.register(app)
    created_s = int((settings.build / MANIFEST_FILE).stat().st_mtime)
    app.register_blueprint(vision.routes(settings, bodies, handler))
    app.register_blueprint(chat_completions.routes(settings, bodies, handler, manifest, created_s))
    app.register_blueprint(metrics_route.routes(metrics))
    app.register_blueprint(web_ui.routes(settings))
    app.register_blueprint(health.routes(settings, readiness, manifest.digest))
    return app


def _let_in(door: Authenticator, quotas: RateLimiter) -> Response | None:
    """Who it is and whether there is room for one more request of theirs; a preflight asks for nothing yet."""
    if request.method == "OPTIONS":
        return Response(status=204)
    if request.path.startswith(_WATCHED):
        return None
    record: RequestRecord = g.record
    address = door.address(request)
    quotas.check_address(address, is_local(request, address))
    record.caller = door.enter(request, address)
    if request.method == "POST":
        standing = quotas.request(record.caller)
        record.headers = standing.headers() if standing else {}
    return None


def _finish(cors_origins: tuple[str, ...], response: Response) -> Response:
    headers.harden(response)
    headers.share(response, cors_origins)
    return response
