"""Spans by OpenTelemetry, sent to an OTLP endpoint in the background."""

from __future__ import annotations

from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.observability.gen_ai import gen_ai_attributes
from gateway.observability.span_protocol import EndSpan

_SEND_TIMEOUT_S = 5
_SERVER_ERROR = 500


class OtlpSpans:
    """One span per request."""

    def __init__(self, endpoint: str, model: str, exporter: SpanExporter | None = None) -> None:
        self._provider = TracerProvider(resource=Resource.create({"service.name": "glm-gateway"}))
        sender = exporter or OTLPSpanExporter(endpoint, timeout=_SEND_TIMEOUT_S)
        self._provider.add_span_processor(BatchSpanProcessor(sender))
        self._tracer = self._provider.get_tracer("gateway")
        self._model = model
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, traceparent: str) -> tuple[str, EndSpan]:
        parent = self._propagator.extract({"traceparent": traceparent})
        span = self._tracer.start_span("request", parent, SpanKind.SERVER)
        context = span.get_span_context()
        passed_on = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

        def end(route: str, status: int, facts: dict[str, Any]) -> None:
            span.update_name(route)
            span.set_attribute("http.response.status_code", status)
            span.set_attributes({f"glm.{name}": value for name, value in facts.items()})
            span.set_attributes(gen_ai_attributes(route, self._model, facts))
            if status >= _SERVER_ERROR:
                span.set_status(StatusCode.ERROR)
            span.end()

        return passed_on, end

    def close(self) -> None:
        self._provider.shutdown()
