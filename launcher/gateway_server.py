"""The gateway under gunicorn, as one child process."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO

from glmserve.limits import CANARY_TIMEOUT_S, GRACEFUL_TIMEOUT_S
from launcher.children import Child
from launcher.notify import without_systemd
from launcher.probe import START_TIMEOUT_VARIABLE, get

_STOP_MARGIN_S = 5.0  # for what the gateway does once its last answer has ended
_PROBE_MARGIN_S = 5.0  # beyond the canary's own time, which a readiness probe may wait for
_POLL_S = 0.25


class GatewayFailed(Exception):
    """The gateway ended or did not become ready in time; the message says what it answered last."""


class GatewayServer:
    """One gateway, from `start` to `stop` or as a `with` block; its log events go to `log`, or to our output."""

    def __init__(
        self,
        build: Path,
        triton_url: str,
        host: str,
        port: int,
        log: IO[bytes] | None = None,
        graceful_timeout_s: float = GRACEFUL_TIMEOUT_S,
        canary_timeout_s: float = CANARY_TIMEOUT_S,
    ) -> None:
        """Two of the gateway's own settings: how long its running requests may take to finish, and how long it lets
        whoever asks for its readiness wait."""
        self._probe_timeout_s = canary_timeout_s + _PROBE_MARGIN_S
        self.url = f"http://{host}:{port}"
        self._host, self._port, self._log = host, port, log
        self._chosen = {
            "GLM_GATEWAY_BUILD": str(build.resolve()),
            "GLM_GATEWAY_TRITON_URL": triton_url,
            "GLM_GATEWAY_BIND": f"{host}:{port}",
        }
        self._stop_after_s = graceful_timeout_s + _STOP_MARGIN_S
        self._child: Child | None = None

    def __enter__(self) -> GatewayServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    def start(self) -> None:
        command = [sys.executable, "-m", "gunicorn", "-c", "python:gateway.server.gunicorn_config"]
        self._child = Child("gateway", command, {**without_systemd(os.environ), **self._chosen}, None, self._log)

    def wait_ready(self, timeout_s: float, tell: Callable[[str], None] = lambda _reason: None) -> None:
        """Returns once the canary question was answered; raises GatewayFailed when the gateway ends or takes longer.

        `tell` is called with each new reason why it is not ready yet.
        """
        give_up = time.monotonic() + timeout_s
        reason = "It did not answer at all."
        while self.exit_code() is None:
            is_ready, now = self.readiness(reason)
            if is_ready:
                return
            if now != reason:
                reason = now
                tell(reason)
            if time.monotonic() > give_up:
                raise GatewayFailed(
                    f"The gateway was not ready within {timeout_s:g} s ({START_TIMEOUT_VARIABLE}). {reason}"
                )
            time.sleep(_POLL_S)
        raise GatewayFailed(f"The gateway ended while it started (exit code {self.exit_code()}).")

    def readiness(self, last_reason: str) -> tuple[bool, str]:
        """Whether it has just answered the canary question, and else why not: `last_reason` when it does not say."""
        reply = get(self._host, self._port, "/health/ready", self._probe_timeout_s)
        if reply is None:
            return False, last_reason
        return reply.status == 200, str(reply.values.get("reason", last_reason))

    def exit_code(self) -> int | None:
        """None while it runs."""
        if self._child is None:
            raise RuntimeError("the gateway was not started")
        return self._child.exit_code()

    def stop(self, patience_s: float | None = None) -> None:
        """Lets running requests finish for `patience_s`, or as long as the gateway itself waits for them; then kills
        what is left, workers without a master too. Does nothing if it never started."""
        if self._child is not None:
            self._child.stop(self._stop_after_s if patience_s is None else patience_s)
            self._child = None
