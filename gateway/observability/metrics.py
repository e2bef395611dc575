"""The gateway's Prometheus metrics: requests, refusals, tokens, and the time of every stage."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = CONTENT_TYPE_LATEST
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_STAGES = ("admission", "prepare", "queue", "vision", "prefill", "decode")
_TOKENS = ("prompt", "image", "completion", "cached")


class Metrics:
    """The metrics of one application; several workers write to one folder, and any of them can sum it up."""

    def __init__(self, shared_folder: Path | None) -> None:
        """`shared_folder` is where prometheus_client keeps the metrics of all workers; None with one worker."""
        self._shared_folder = shared_folder
        self._of = functools.cache(lambda metric, *labels: metric.labels(*labels))  # each look-up takes a lock
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("glm_gateway_requests", "Requests that ended.", ["route", "status"], registry=registry)
        self._refusals = Counter(
            "glm_gateway_refusals", "Requests that were not answered, by reason.", ["reason"], registry=registry
        )
        self._seconds = Histogram(
            "glm_gateway_request_seconds",
            "Time from the first byte read to the last one written.",
            ["route"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._first_token = Histogram(
            "glm_gateway_first_token_seconds",
            "Time from handing a prompt over to its first token.",
            buckets=_BUCKETS,
            registry=registry,
        )
        self._stages = Histogram(
            "glm_gateway_stage_seconds", "Time in each stage.", ["stage"], buckets=_BUCKETS, registry=registry
        )
        self._tokens = Counter("glm_gateway_tokens", "Tokens of answered requests.", ["kind"], registry=registry)
        self._lost = Counter(
            "glm_gateway_lost_log_lines", "Log lines that could not be written, by log.", ["log"], registry=registry
        )
        for log in ("stdout", "audit"):
            self._of(self._lost, log)  # so that it is there before the first line is lost
        self._running, self._waiting, self._room = (
            Gauge(f"glm_gateway_{name}", text, registry=registry, multiprocess_mode="livesum")
            for name, text in (
                ("running_requests", "Requests that were admitted and have not ended."),
                ("waiting_requests", "Requests that wait to be admitted."),
                ("admitted_tokens", "Tokens that the running requests may come to."),
            )
        )
        self._counting = threading.Lock()
        self._up = Gauge(
            "glm_gateway_tritons_up",
            "Tritons that have not died, as the worker saw it that was asked last.",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )

    def tritons_up(self, count: int) -> None:
        """Sets the gauge of Tritons that are up now."""
        self._up.set(count)

    def log_lost(self, log: str, lines: int) -> None:
        """Counts lines that could not be written, of `log` stdout or audit."""
        self._of(self._lost, log).inc(lines)

    def crowd(self, counts: Callable[[], tuple[int, int, int]]) -> None:
        """Sets the gauges to what runs and waits now, and the tokens of what runs.

        Counts while nobody else does, so that no older number is set last.
        """
        with self._counting:
            running, waiting, tokens = counts()
            self._running.set(running)
            self._waiting.set(waiting)
            self._room.set(tokens)

    def ended(self, route: str | None, status: int, error_code: str | None, ms: float, facts: dict[str, Any]) -> None:
        """Counts one request that has ended."""
        named = route or "none"
        self._of(self._requests, named, str(status)).inc()
        self._of(self._seconds, named).observe(ms / 1000)
        if error_code is not None:
            self._of(self._refusals, error_code).inc()
        for stage in _STAGES:
            if f"{stage}_ms" in facts:
                self._of(self._stages, stage).observe(facts[f"{stage}_ms"] / 1000)
        if "first_token_ms" in facts:
            self._first_token.observe(facts["first_token_ms"] / 1000)
        for kind in _TOKENS:
            if f"{kind}_tokens" in facts:
                self._of(self._tokens, kind).inc(facts[f"{kind}_tokens"])

    def page(self) -> bytes:
        """All metrics in Prometheus' text format, of all workers."""
        registry = self._registry
        if self._shared_folder is not None:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, path=str(self._shared_folder))  # type: ignore[no-untyped-call]
        return generate_latest(registry)
