"""What gunicorn runs: `gateway.wsgi:application()`, called in each worker after it has forked."""

from __future__ import annotations

from contextlib import closing

import structlog
from flask import Flask

from gateway import malloc
from gateway.app import create_app
from gateway.chat.readiness import Canary, Readiness
from gateway.chat.service import ChatService
from gateway.observability import logging
from gateway.resources import BACKEND, STREAMS
from gateway.settings import GatewaySettings
from gateway.triton.backend import Backend
from gateway.triton.grpc_client import TritonBackend
from gateway.triton.grpc_streams import StreamThread
from gateway.triton.load_balancer import LoadBalancer


def application() -> Flask:
    """The application of this process, with connections to Triton of its own."""
    malloc.keep_buffers()
    logging.configure()
    settings = GatewaySettings.read()
    structlog.get_logger().info("gateway_starting", **settings.shown())
    streams = StreamThread()
    backend = _backend(settings, streams)
    backend.start()
    app = create_app(settings, backend)
    app.extensions[BACKEND] = backend
    app.extensions[STREAMS] = streams
    malloc.give_back()
    return app


def canary_fault() -> str | None:
    """Why the Triton of this environment's settings cannot answer the canary now; None when it can."""
    settings = GatewaySettings.read()
    with closing(_backend(settings)) as backend:
        service, canary = ChatService(settings, backend), Canary.read(settings.build)
        with closing(service.decoders):
            return Readiness(service, backend, canary, settings.canary_timeout_s, settings.canary_cache_s).fault()


def _backend(settings: GatewaySettings, streams: StreamThread | None = None) -> LoadBalancer:
    """All Tritons, each spoken to as its address says."""

    def connect(url: str) -> Backend:
        if url.startswith("http://"):
            from gateway.triton.http_client import TritonHttpBackend  # with gevent, for which gRPC has no use

            return TritonHttpBackend(url)
        return TritonBackend(url, settings.response_timeout_s, streams)

    return LoadBalancer(settings.triton_url, connect)
