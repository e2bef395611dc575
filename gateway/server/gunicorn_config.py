"""gunicorn's configuration, made from the gateway's settings: `gunicorn -c python:gateway.server.gunicorn_config`.

The one module that does work when it is imported: gunicorn reads its settings as module variables.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import gunicorn.http.wsgi  # type: ignore[import-untyped]
import gunicorn.util  # type: ignore[import-untyped]

from gateway.server.plain_errors import write_error
from gateway.server.response import JoinedResponse
from gateway.settings import PREFIX, GatewaySettings
from glmserve.errors import BadSettings
from glmserve.limits import ANSWER_GRACE_S, REQUEST_HEAD_TIMEOUT_S
from glmserve.system.runtime_folder import RuntimeFolder

try:
    _settings = GatewaySettings.read()
except BadSettings as error:
    sys.exit(error.message)
_own_folder = RuntimeFolder("glm-metrics-") if _settings.workers > 1 and _settings.metrics_folder is None else None
if _settings.workers > 1:
    # prometheus_client reads this variable when it is first imported, and workers inherit ours
    _folder = str(_settings.metrics_folder if _own_folder is None else _own_folder.path)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = os.environ[f"{PREFIX}METRICS_FOLDER"] = _folder

gunicorn.http.wsgi.SERVER = "web"  # the Server header cannot be left out, but it need not name us
gunicorn.http.wsgi.Response = JoinedResponse
gunicorn.util.write_error = write_error
wsgi_app = "gateway.wsgi:application()"
bind = _settings.bind
worker_class = "gateway.server.worker.GatewayWorker"
workers = _settings.workers
threads = _settings.threads
preload_app = False  # a gRPC channel must be made after the fork
graceful_timeout = _settings.graceful_timeout_s
timeout = 6
"""A worker whose main thread is stuck for so many seconds is replaced: aborted at first, killed a second later, and the
next one needs two or three seconds to start. Requests have their own deadlines."""
keepalive = 5
accesslog = None  # the application logs one event per request
errorlog = "-"
loglevel = "warning"
control_socket_disable = True
# No header names our path (SCRIPT_NAME) or scheme, not even from loopback.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}


def post_fork(_server: Any, worker: Any) -> None:
    """Sets both timeouts of a new worker."""
    worker.head_timeout_s = min(REQUEST_HEAD_TIMEOUT_S, _settings.body_timeout_s)
    worker.rest_timeout_s = _settings.body_timeout_s + _settings.deadline_s + ANSWER_GRACE_S


def on_exit(_server: Any) -> None:
    """Removes the metrics; a gateway that was killed leaves them to the next one."""
    if _own_folder is not None:
        _own_folder.remove()


def worker_exit(_server: Any, worker: Any) -> None:
    """Closes what a worker holds: its connections to Triton, the watched client sockets, its audit log."""
    from gateway.resources import close_all

    worker.watchdog.close()
    app = worker.app.callable
    if app is not None:
        close_all(app)


def child_exit(_server: Any, worker: Any) -> None:
    """Removes a dead worker's gauges from the metrics."""
    if _settings.workers > 1:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
