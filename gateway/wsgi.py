"""What gunicorn runs: `gateway.wsgi:application()`, called in each worker after it has forked."""

from __future__ import annotations

import structlog
from flask import Flask

from gateway import memory, telemetry
from gateway.app import create_app
from gateway.backend import Backend
from gateway.settings import GatewaySettings
from gateway.triton import TritonBackend
from gateway.triton_http import TritonHttpBackend

BACKEND = "backend"
"""The key in `app.extensions` under which a worker's exit finds what it must close."""


def application() -> Flask:
    """The application of this process, with a connection to Triton of its own."""
    memory.keep_buffers()
    telemetry.configure()
    settings = GatewaySettings.read()
    structlog.get_logger().info("gateway_starting", **settings.shown())
    backend = _backend(settings)
    app = create_app(settings, backend)
    app.extensions[BACKEND] = backend
    memory.give_back()
    return app


def _backend(settings: GatewaySettings) -> Backend:
    """The address says how Triton is spoken to."""
    if settings.triton_url.startswith("http://"):
        return TritonHttpBackend(settings.triton_url)
    return TritonBackend(settings.triton_url, settings.response_timeout_s)
