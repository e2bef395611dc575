"""`create_app` is where the gateway's parts meet."""

from __future__ import annotations

import re
from functools import partial

from flask import Flask, Response, g, request

from gateway.api import chat_completions, error_handlers, headers, health, metrics_route, models, vision, web_ui
from gateway.api.body_reader import BodyReader
from gateway.api.completions import routes as completions
from gateway.api.handler import ChatHandler
from gateway.api.llama_cpp import routes as llama_cpp
from gateway.api.messages import routes as messages
from gateway.api.messages.problem import messages_problem
from gateway.api.paths import CanonicalPaths
from gateway.api.responses import routes as responses
from gateway.api.tokens import routes as tokens
from gateway.chat.readiness import Readiness
from gateway.chat.service import ChatService
from gateway.limits.admission import Admission
from gateway.limits.auth import Authenticator
from gateway.limits.cross_site import check_content_type
from gateway.limits.rate_limit import RateLimitCounters, RateLimiter
from gateway.observability.audit import AuditLog
from gateway.observability.line_writer import LineWriter
from gateway.observability.metrics import Metrics
from gateway.observability.request_hooks import RequestHooks
from gateway.observability.request_record import RequestRecord
from gateway.observability.tracing import Tracing
from gateway.reading.dear_reader import DearReader
from gateway.resources import AUDIT, BODIES, DEAR, DECODERS, DISCONNECTS, TRACING
from gateway.settings import GatewaySettings
from gateway.streaming.disconnects import DisconnectWatcher
from gateway.triton.backend import BackendPool
from glmserve.build.canary import Canary
from glmserve.build.manifest import MANIFEST_FILE, Manifest

_FAMILIES = (completions, responses, messages, llama_cpp, models, tokens, health)
"""Folders and modules of routes that tell the OpenAPI document what they are; vision and chat come first in it."""
_PROBES = re.compile(r"/(health(/.*)?|ping)")  # they need no key, count for nobody, and come from the allowed networks
_FORM_PATHS = ("/v1/chat/vision",)
_SPARE_SHARE = 8  # one thread in eight is kept free to refuse requests


def create_app(settings: GatewaySettings, backend: BackendPool, log_lines: LineWriter | None = None) -> Flask:
    """The web application for one build; raises BadArtifact if the build is incomplete. The caller closes `backend`."""
    manifest = Manifest.read(settings.build)
    dear = DearReader(settings.body_timeout_s)
    service = ChatService(settings, backend, dear)
    app = Flask("gateway", static_folder=None)
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    app.json.sort_keys = False  # type: ignore[attr-defined]
    disconnects = app.extensions[DISCONNECTS] = DisconnectWatcher()
    app.extensions[DECODERS] = service.decoders
    rate_limiter = RateLimiter(settings, RateLimitCounters(settings.redis_url))
    concurrent = max(1, settings.threads - max(1, settings.threads // _SPARE_SHARE))
    admission = Admission(settings.admission_tokens, concurrent, settings.max_waiting, settings.flood_wait)
    readiness = Readiness(
        service,
        backend,
        Canary.read(settings.build),
        settings.canary_timeout_s,
        settings.canary_cache_s,
        on_pace=admission.observe_trial,
    )
    metrics = Metrics(settings.metrics_folder)
    tracing = app.extensions[TRACING] = Tracing.to(settings.otlp_endpoint, settings.model_name)
    handler = ChatHandler(settings, service, disconnects, rate_limiter, admission, metrics)
    bodies = app.extensions[BODIES] = BodyReader(
        settings.max_body_bytes, settings.max_json_bytes, settings.body_timeout_s, handler.take_place, dear
    )
    app.extensions[DEAR] = dear
    audit = app.extensions[AUDIT] = AuditLog(settings.audit_file) if settings.audit_file else None
    for log, lines in (("stdout", log_lines), ("audit", audit.lines if audit else None)):
        if lines is not None:
            lines.report_to(partial(metrics.log_lost, log))
    hooks = RequestHooks(tracing, metrics, admission, manifest.digest, audit)
    app.before_request(hooks.begin)
    app.before_request(partial(_authenticate, Authenticator(settings), rate_limiter))
    app.after_request(partial(_finish, settings.cors_origins))
    app.after_request(hooks.end)
    error_handlers.register(app, {messages.PATH: messages_problem})
    created_s = int((settings.build / MANIFEST_FILE).stat().st_mtime)
    app.register_blueprint(vision.routes(settings, bodies, handler))
    app.register_blueprint(chat_completions.routes(settings, bodies, handler, manifest.digest))
    app.register_blueprint(completions.routes(settings, bodies, handler, manifest.digest))
    app.register_blueprint(messages.routes(settings, bodies, handler))
    app.register_blueprint(responses.routes(settings, bodies, handler))
    app.register_blueprint(llama_cpp.routes(settings, bodies, handler, concurrent))
    app.register_blueprint(models.routes(settings, handler, manifest, created_s))
    app.register_blueprint(tokens.routes(settings, bodies, handler))
    app.register_blueprint(metrics_route.routes(metrics, backend.count_up))
    app.register_blueprint(health.routes(settings, readiness, admission, manifest.digest))
    app.register_blueprint(web_ui.routes(settings, tuple(family.docs() for family in _FAMILIES)))
    app.wsgi_app = CanonicalPaths(app.wsgi_app)  # type: ignore[method-assign]
    return app


def _authenticate(authenticator: Authenticator, rate_limiter: RateLimiter) -> Response | None:
    """Finds out who sent the request and charges them for it; a CORS preflight is free."""
    if request.method == "OPTIONS":
        return Response(status=204)
    if _PROBES.fullmatch(request.path):
        authenticator.check_probe(request)
        return None
    record: RequestRecord = g.record
    address = authenticator.client_address(request)
    authenticator.check_site(request)
    is_exempt = authenticator.is_exempt(request, address)
    rate_limiter.check_address(address, is_exempt)
    record.caller = authenticator.authenticate(request, address, is_exempt)
    if request.method == "POST":
        limit = rate_limiter.charge_request(record.caller)
        record.headers = limit.request_headers() if limit else {}
        if request.url_rule is not None:
            check_content_type(request, request.path in _FORM_PATHS)
    return None


def _finish(cors_origins: tuple[str, ...], response: Response) -> Response:
    headers.harden(response)
    headers.share(response, cors_origins)
    return response
