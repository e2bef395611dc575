"""What gunicorn runs: `gateway.wsgi:application()`, called in each worker after it has forked."""

from __future__ import annotations

import structlog
from flask import Flask

from gateway import telemetry
from gateway.app import create_app
from gateway.settings import GatewaySettings
from gateway.triton import TritonBackend

BACKEND = "backend"
"""The key in `app.extensions` under which a worker's exit finds what it must close."""


def application() -> Flask:
    """The application of this process, on a Triton channel of its own."""
    telemetry.configure()
    settings = GatewaySettings.read()
    structlog.get_logger().info("gateway_starting", **settings.shown())
    backend = TritonBackend(settings.triton_url, settings.response_timeout_s)
    app = create_app(settings, backend)
    app.extensions[BACKEND] = backend
    return app
