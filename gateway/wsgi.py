"""What gunicorn runs: `gateway.wsgi:application()`, called in each worker after the fork."""

from __future__ import annotations

from contextlib import closing

import structlog
from flask import Flask

from gateway.app import create_app
from gateway.chat.readiness import Readiness
from gateway.chat.service import ChatService
from gateway.observability import logging
from gateway.resources import BACKEND, STREAMS
from gateway.settings import GatewaySettings
from gateway.triton.backend import Backend
from gateway.triton.grpc_client import TritonBackend
from gateway.triton.grpc_streams import StreamThread
from gateway.triton.load_balancer import LoadBalancer
from glmserve.build.canary import Canary
from glmserve.limits import FIRST_CANARY_S
from glmserve.system import malloc


def application() -> Flask:
    """The application of this process, with its own connections to Triton."""
    malloc.keep_buffers()
    log_lines = logging.configure()
    settings = GatewaySettings.read()
    structlog.get_logger().info("gateway_starting", **settings.shown())
    streams = StreamThread()
    backend = _backend(settings, streams)
    backend.start()
    app = create_app(settings, backend, log_lines)
    app.extensions[BACKEND] = backend
    app.extensions[STREAMS] = streams
    malloc.trim_after_start()
    return app


def canary_fault() -> str | None:
    """Why Triton cannot answer the canary now, with this environment's settings; None when it can."""
    settings = GatewaySettings.read()
    with closing(_backend(settings)) as backend:
        service, canary = ChatService(settings, backend), Canary.read(settings.build)
        with closing(service.decoders):
            readiness = Readiness(service, backend, canary, settings.canary_timeout_s, settings.canary_cache_s)
            return readiness.fault(wait_s=FIRST_CANARY_S)


def _backend(settings: GatewaySettings, streams: StreamThread | None = None) -> LoadBalancer:
    """All Tritons of the settings, by gRPC or HTTP as their address says."""

    def connect(url: str) -> Backend:
        if url.startswith("http://"):
            from gateway.triton.http_client import TritonHttpBackend  # loads gevent, which gRPC does not need

            return TritonHttpBackend(url)
        return TritonBackend(url, settings.response_timeout_s, streams)

    return LoadBalancer(settings.triton_url, connect)
