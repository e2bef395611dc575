"""gunicorn's configuration, from the gateway's settings: `gunicorn -c python:gateway.gunicorn_config`.

The one module that works at import time, because gunicorn reads its settings as module variables.
"""

from __future__ import annotations

from typing import Any

import gunicorn.http.wsgi  # type: ignore[import-untyped]

from gateway.app import CLIENTS
from gateway.settings import GatewaySettings
from gateway.wsgi import BACKEND

_settings = GatewaySettings.read()

gunicorn.http.wsgi.SERVER = "web"  # the Server header cannot be left out, but it need not name us
wsgi_app = "gateway.wsgi:application()"
bind = _settings.bind
worker_class = "gthread"
workers = _settings.workers
threads = _settings.threads
preload_app = False  # a gRPC channel must be made after the fork
graceful_timeout = _settings.graceful_timeout_s
timeout = 60  # a worker whose main thread shows no life this long is replaced; requests have deadlines of their own
keepalive = 5
accesslog = None  # the application logs one event a request
errorlog = "-"
loglevel = "warning"
control_socket_disable = True


def worker_exit(_server: Any, worker: Any) -> None:
    """Closes a worker's Triton channel and its watch over clients when it ends."""
    app = worker.app.callable
    if app is not None:
        app.extensions[CLIENTS].close()
        app.extensions[BACKEND].close()
