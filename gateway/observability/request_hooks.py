"""Follows each request from its first line to its last byte: one record, one log event, its metrics and its span."""

from __future__ import annotations

from functools import partial

from flask import Response, g, request

from gateway.limits.admission import Admission
from gateway.observability.audit import AuditLog
from gateway.observability.metrics import Metrics
from gateway.observability.request_record import RequestRecord
from gateway.observability.span_protocol import EndSpan
from gateway.observability.tracing import Tracing


class RequestHooks:
    """Runs before and after each request. A request ends when its last byte is written or its client has left."""

    def __init__(
        self, tracing: Tracing, metrics: Metrics, admission: Admission, build_digest: str, audit: AuditLog | None
    ) -> None:
        self._tracing = tracing
        self._metrics = metrics
        self._admission = admission
        self._build_digest = build_digest
        self._audit = audit

    def begin(self) -> None:
        record = g.record = RequestRecord(request.headers.get("X-Request-ID", ""))
        record.facts["build"] = self._build_digest
        record.traceparent, g.end_span = self._tracing.begin(request.headers.get("traceparent", ""))

    def end(self, response: Response) -> Response:
        record: RequestRecord = g.record
        response.headers["X-Request-ID"] = record.request_id
        response.headers.update(record.headers)
        route = request.url_rule.rule if request.url_rule else None
        if not response.is_streamed:
            record.holds.close()  # before the answer is sent: its client may send the next request at once
        response.call_on_close(partial(self._finish, record, g.end_span, route, request.method, response.status_code))
        return response

    def _finish(
        self, record: RequestRecord, end_span: EndSpan | None, route: str | None, method: str, status: int
    ) -> None:
        record.holds.close()
        self._learn(record)
        self._metrics.ended(route, status, record.error_code, record.ms(), record.facts)
        self._metrics.crowd(self._admission.counts)
        record.log(route, method, status)
        if self._audit is not None:
            self._audit.write(record, route, status)
        if end_span is not None:
            end_span(route or "none", status, record.facts)

    def _learn(self, record: RequestRecord) -> None:
        """Tells the admission how long a complete answer took, so that it can tell who would wait too long."""
        facts = record.facts
        if record.max_tokens and "decode_ms" in facts and "completion_tokens" in facts:
            prefill_s = (facts["vision_ms"] + facts["prefill_ms"]) / 1000
            tokens, decode_s = facts["completion_tokens"] // facts.get("answers", 1), facts["decode_ms"] / 1000
            self._admission.observe_answer(record.max_tokens, tokens, prefill_s, decode_s)
