"""One chat request: a conversation in, an answer out, whole or as a stream, in the shape its route gives it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from flask import Response, g, jsonify, request
from numpy.typing import NDArray

from gateway.chat.generation import Answer, StartedAnswer
from gateway.chat.late_answer import Allowed, explained, explained_stream
from gateway.chat.prompts import Prompt
from gateway.chat.service import ChatService, Prepared, RequestContext
from gateway.deadline import DEADLINE_HEADER, LEAST_DEADLINE_S, START_HEADER, Deadline, patience_s, seconds_since
from gateway.errors import UnknownModel
from gateway.limits.admission import Admission
from gateway.limits.rate_limit import RateLimiter, caller_key
from gateway.observability.metrics import Metrics
from gateway.observability.request_record import RequestRecord
from gateway.schemas.conversation import Conversation
from gateway.schemas.unknown_fields import refusal_of_unknown
from gateway.server.connection import client_socket, plain_socket
from gateway.settings import GatewaySettings
from gateway.streaming import sse
from gateway.streaming.disconnects import DisconnectWatcher
from gateway.triton.backend import Cancellation
from gateway.triton.stream_buffer import StreamBuffer
from glmserve.errors import InvalidInput


class Shape(sse.StreamShape, Protocol):
    """How a route writes an answer, whole or streamed; made for one request."""

    def whole(self, prepared: Prepared, answer: Answer) -> dict[str, Any] | list[dict[str, Any]]:
        """The body of a finished answer."""
        ...


@dataclass(frozen=True)
class ChatHandler:
    """Answers chat requests; shared between threads."""

    settings: GatewaySettings
    service: ChatService
    disconnects: DisconnectWatcher
    rate_limiter: RateLimiter
    admission: Admission
    metrics: Metrics

    def take_place(self) -> str:
        """Counts the current request among its caller's concurrent ones; raises RateLimited if there are too many.

        Comes before its body is parsed, which may cost much memory and time. Says whose it is.
        """
        record: RequestRecord = g.record
        record.body_arrived_s = time.monotonic()
        record.holds.enter_context(self.rate_limiter.concurrency_slot(record.caller))
        return caller_key(record.caller)

    def respond(
        self,
        conversation: Conversation,
        shape: Shape,
        is_stream: bool,
        knows_all_fields: bool = False,
        others: tuple[Conversation, ...] = (),
    ) -> Response:
        """The response to the current request; everything it holds is given back when that response has ended.

        On a route that `knows_all_fields`, others are mistakes; routes of other services have fields that we lack.
        `others` are prompts without images that are answered beside the conversation.
        """
        record: RequestRecord = g.record
        self._judge(conversation.unknown, record, knows_all_fields)
        cancellation, deadline, caller = Cancellation(), self._deadline(), record.caller
        record.holds.enter_context(self.disconnects.watch(client_socket(request.environ), cancellation.cancel))

        def admit(prompt: Prompt, max_tokens: int) -> None:
            self.rate_limiter.check_image_tokens(caller, prompt.image_tokens)
            arrived_ms = record.ms()
            tokens = len(prompt.input_ids) + max_tokens * conversation.answers
            tokens += sum(len(each.prompt.input_ids) + each.max_tokens * conversation.answers for each in beside)
            record.max_tokens = max_tokens
            record.holds.enter_context(self.admission.admit(tokens, deadline, cancellation, max_tokens))
            left = self.rate_limiter.charge_image_tokens(caller, prompt.image_tokens)
            record.headers |= left.token_headers() if left else {}
            record.facts["admission_ms"] = round(record.ms() - arrived_ms, 1)
            self.metrics.crowd(self.admission.counts)

        if others:
            self.admission.check_open()
            self.service.check_places(conversation, 1 + len(others), deadline, cancellation)
        beside = tuple(
            self.service.prepare(
                each, deadline, cancellation, caller=caller_key(caller), when_opened=self.admission.check_open
            )
            for each in others
        )
        allowed = self._allowed(conversation, is_stream)
        with explained(allowed):
            first = self.service.prepare(
                conversation, deadline, cancellation, admit, caller_key(caller), self.admission.check_open
            )
        prepared = replace(first, others=beside) if beside else first
        record.prepared(prepared)
        context = RequestContext(record.request_id, deadline, cancellation, caller.cache_scope, record.traceparent)
        if not is_stream:
            with explained(allowed):
                answer = self.service.answer(prepared, context)
            record.answered(answer)
            return jsonify(shape.whole(prepared, answer))

        def begin(buffer: StreamBuffer | None) -> StartedAnswer:
            with explained(allowed):
                return explained_stream(self.service.stream(prepared, context, buffer), allowed)

        streamed = sse.StreamedResponse(
            begin,
            shape,
            prepared,
            record,
            cancellation,
            plain_socket(request.environ),
        )
        record.holds.callback(streamed.close)
        streamed.wait(self.settings.heartbeat_s)  # what fails by then still has a status of its own
        return Response(streamed.body(self.settings.heartbeat_s), mimetype=sse.MIMETYPE, headers=sse.HEADERS)

    def check_model(self, name: str | None) -> None:
        """Raises UnknownModel for a name that is neither the model's nor another one that the settings give it."""
        if name is not None and name not in (self.settings.model_name, *self.settings.model_aliases):
            raise UnknownModel(f"Unknown model; this service has {self.settings.model_name}.", "model")

    def count(self, conversation: Conversation) -> Prompt:
        """The prompt of a conversation, with its token counts; judges its unknown fields as `respond` does."""
        self._judge(conversation.unknown, g.record, knows_all_fields=False)
        return self.service.count(conversation, self._deadline(), caller_key(g.record.caller))

    def text_of(self, ids: NDArray[np.int64]) -> str:
        """The text of token ids [tokens], of which many wait until it is the caller's turn."""
        return self.service.text_of(ids, self._deadline(), caller_key(g.record.caller))

    def _judge(self, unknown: tuple[str, ...], record: RequestRecord, knows_all_fields: bool) -> None:
        """Refuses a request for fields that nobody here knows, or warns its sender of them, as the settings say."""
        policy = self.settings.unknown_fields
        if not unknown or policy == "ignore":
            return
        if policy == "refuse" or knows_all_fields:
            raise refusal_of_unknown(unknown)
        record.headers["Warning"] = f'199 - "These fields are not known and change nothing: {", ".join(unknown)}."'

    def _allowed(self, conversation: Conversation, is_stream: bool) -> Allowed:
        return Allowed(
            round(self._wanted_s(), 1),
            self.settings.deadline_s,
            conversation.sampling.max_tokens,
            len(conversation.images()),
            is_stream,
            conversation.partial_on_timeout,
        )

    def _deadline(self) -> Deadline:
        """When the request's time is over, which runs since its body arrived, or since our own proxy sent it on."""
        start = request.headers.get(START_HEADER, "") if self.settings.trusted_proxies else ""
        gone_s = max(time.monotonic() - g.record.body_arrived_s, seconds_since(start))
        return Deadline.after(self._wanted_s() - gone_s)

    def _wanted_s(self) -> float:
        """The service's deadline, or the client's own if that is sooner."""
        wanted_s = patience_s(request.headers.get(DEADLINE_HEADER), self.settings.deadline_s)
        if math.isnan(wanted_s):
            raise InvalidInput(
                f"The header {DEADLINE_HEADER} must be a number of seconds, at least {LEAST_DEADLINE_S}.",
                DEADLINE_HEADER,
            )
        return wanted_s
