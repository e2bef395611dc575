"""Tracing: a request's trace is passed on to Triton; with an endpoint set, the gateway adds a span of its own."""

from __future__ import annotations

import re

from gateway.observability.span_protocol import EndSpan, Spans

_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Tracing:
    """Continues traces; OpenTelemetry is loaded only if an endpoint is set."""

    def __init__(self, spans: Spans | None) -> None:
        self._spans = spans

    @staticmethod
    def to(endpoint: str, model: str) -> Tracing:
        """Sends spans that name this model to an OTLP endpoint; makes none if the endpoint is empty."""
        if not endpoint:
            return Tracing(None)
        from gateway.observability.otel import OtlpSpans

        return Tracing(OtlpSpans(endpoint, model))

    def begin(self, sent: str) -> tuple[str, EndSpan | None]:
        """The `traceparent` to pass on, possibly empty, and how to end the span, if there is one."""
        sent = sent if _TRACEPARENT.fullmatch(sent) else ""
        return (sent, None) if self._spans is None else self._spans.begin(sent)

    def close(self) -> None:
        """Sends what has not been sent yet."""
        if self._spans is not None:
            self._spans.close()
