"""One exchange with a client: a conversation in, an answer out, whole or in pieces, in the shape its route gives it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from flask import Response, g, jsonify, request

from gateway.chat.generation import Answer, Event, Piece, whole
from gateway.chat.service import ChatService, Prepared, Prompt
from gateway.deadline import DEADLINE_HEADER, LEAST_DEADLINE_S, Deadline
from gateway.limits.admission import Admission
from gateway.limits.rate_limit import RateLimiter
from gateway.observability.metrics import Metrics
from gateway.observability.request_record import RequestRecord
from gateway.schemas.conversation import Conversation
from gateway.settings import GatewaySettings
from gateway.streaming import sse
from gateway.streaming.client_socket import CLIENT_SOCKET
from gateway.streaming.direct_writer import DirectStreamWriter, plain_socket
from gateway.streaming.disconnects import DisconnectWatcher
from gateway.triton.backend import Cancellation
from gateway.triton.stream_buffer import StreamBuffer
from glmserve.errors import Cancelled, GlmServeError, InvalidInput


class Shape(Protocol):
    """How a route writes an answer; made for one request."""

    def whole(self, prepared: Prepared, answer: Answer) -> dict[str, Any]:
        """The body of a finished answer."""
        ...

    def start(self) -> Iterator[str]:
        """The first events, before anything was said."""
        ...

    def piece(self, piece: Piece) -> Iterator[str]:
        """Server-sent events for what was added."""
        ...

    def end(self, prepared: Prepared, answer: Answer) -> Iterator[str]:
        """The last events of an answer that succeeded."""
        ...

    def failure(self, error: GlmServeError) -> Iterator[str]:
        """The last events of one that did not."""
        ...


@dataclass(frozen=True)
class ChatHandler:
    """Carries out exchanges; shared between threads."""

    settings: GatewaySettings
    service: ChatService
    clients: DisconnectWatcher
    quotas: RateLimiter
    admission: Admission
    metrics: Metrics

    def respond(self, conversation: Conversation, shape: Shape, is_stream: bool) -> Response:
        """The response to the current request; everything it holds is given back when that response has ended."""
        record: RequestRecord = g.record
        cancellation = Cancellation()
        record.holds.enter_context(self.clients.watch(request.environ.get(CLIENT_SOCKET), cancellation.say))
        deadline, caller = self._deadline(), record.caller

        def admit(prompt: Prompt, max_tokens: int) -> None:
            self.quotas.check_image_tokens(caller, prompt.image_tokens)
            came_ms = record.ms()
            room = self.admission.admit(len(prompt.input_ids) + max_tokens, deadline, cancellation)
            record.holds.enter_context(room)
            self.quotas.images(caller, prompt.image_tokens)
            record.facts["admission_ms"] = round(record.ms() - came_ms, 1)
            self.metrics.crowd(*self.admission.state())

        record.holds.enter_context(self.quotas.running(caller))
        prepared = self.service.prepare(conversation, deadline, cancellation, admit)
        record.prepared(prepared)
        client = plain_socket(request.environ) if is_stream else None
        stream_buffer = StreamBuffer() if client else None
        events = self.service.stream(
            prepared,
            record.request_id,
            deadline,
            cancellation,
            caller.cache_scope,
            record.traceparent,
            not is_stream,
            stream_buffer,
        )
        if not is_stream:
            answer = whole(events)
            record.answered(answer)
            return jsonify(shape.whole(prepared, answer))
        first = sse.FirstEventWaiter(events, cancellation)
        record.holds.callback(first.close)
        first.wait(self.settings.heartbeat_s)  # what fails by then still has a status of its own
        passing = (
            DirectStreamWriter(client, stream_buffer, events, lambda event: _written(shape, event))
            if client and stream_buffer
            else None
        )
        body = _body(first, shape, prepared, record, self.settings.heartbeat_s, passing)
        return Response(body, mimetype=sse.MIMETYPE, headers=sse.HEADERS)

    def count(self, conversation: Conversation) -> Prompt:
        """The tokens that a conversation would take."""
        return self.service.count(conversation, self._deadline())

    def _deadline(self) -> Deadline:
        """Ours, or the client's own where that is sooner."""
        sent = request.headers.get(DEADLINE_HEADER)
        try:
            wanted_s = self.settings.deadline_s if sent is None else float(sent)
        except ValueError:
            wanted_s = 0.0
        if not wanted_s >= LEAST_DEADLINE_S and sent is not None:  # nan neither
            raise InvalidInput(
                f"The header {DEADLINE_HEADER} must be a number of seconds, at least {LEAST_DEADLINE_S}.",
                DEADLINE_HEADER,
            )
        return Deadline.after(min(wanted_s, self.settings.deadline_s))


def _body(
    first: sse.FirstEventWaiter,
    shape: Shape,
    prepared: Prepared,
    record: RequestRecord,
    heartbeat_s: float,
    passing: DirectStreamWriter | None,
) -> Iterator[str]:
    """The events of one answer; it runs when the request's context is gone."""
    beginning, has_begun = "".join(shape.start()), False
    try:
        for event in first.events(heartbeat_s):
            if event is None:
                text = sse.HEARTBEAT
            elif isinstance(event, Answer):
                record.answered(event)
                text = "".join(shape.end(prepared, event))
            else:
                text = _written(shape, event)
            if text:
                yield text if has_begun else beginning + text
                has_begun = True
            if passing is not None and has_begun and isinstance(event, Piece):  # blanks may come before any text
                passing.run()
    except GeneratorExit:
        record.error_code = Cancelled.code
        raise
    except GlmServeError as error:
        record.error_code = error.code
        yield from shape.failure(error)
    except Exception as error:  # the request's outer edge
        structlog.get_logger().error("unexpected_error", request_id=record.request_id, exc_info=error)
        record.error_code = GlmServeError.code
        yield from shape.failure(GlmServeError())


def _written(shape: Shape, event: Event) -> str:
    return "".join(shape.piece(event)) if isinstance(event, Piece) else ""
