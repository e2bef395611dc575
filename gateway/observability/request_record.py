"""What is known of one request; logged as one event when it has ended."""

from __future__ import annotations

import re
import secrets
import time
from contextlib import ExitStack
from typing import Any

import structlog

from gateway.chat.generation import Answer
from gateway.chat.service import Prepared
from gateway.limits.auth import Caller

_LOG = structlog.get_logger()  # reads its configuration with its first event, and never again
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestRecord:
    """One request; `holds` releases at its end what it holds. Never contains prompts, images or answers."""

    def __init__(self, request_id: str) -> None:
        """Keeps the client's own id if it has no unsafe characters."""
        self.request_id = request_id if _REQUEST_ID.fullmatch(request_id) else secrets.token_hex(16)
        self.started_s = self.body_arrived_s = time.monotonic()
        self.facts: dict[str, Any] = {}
        self.error_code: str | None = None
        self.caller = Caller("", None)  # until it is authenticated
        self.traceparent = ""
        self.image_hashes: tuple[str, ...] = ()
        self.max_tokens = 0  # that its answer may have, once it is known
        self.headers: dict[str, str] = {}
        self.holds = ExitStack()

    def prepared(self, prepared: Prepared) -> None:
        prompt = prepared.prompt
        self.image_hashes = prompt.image_hashes
        self.facts |= {
            "images": len(prompt.image_sizes),
            **({"videos": len(prompt.videos)} if prompt.videos else {}),
            "prompt_tokens": prepared.prompt_tokens,
            "image_tokens": prompt.image_tokens,
            "prepare_ms": self.ms(),
        }
        if prompt.image_sizes:
            self.facts["image_width"], self.facts["image_height"] = prompt.image_sizes[0]

    def answered(self, answer: Answer) -> None:
        self.facts |= {
            "completion_tokens": answer.completion_tokens,
            **({"answers": len(answer.answers)} if answer.others else {}),
            "cached_tokens": answer.cached_tokens,
            "finish_reason": answer.finish_reason,
            **({"timed_out": True} if answer.timed_out else {}),
            **(answer.timings or {}),
        }

    def ms(self) -> float:
        """Milliseconds since the request arrived."""
        return round((time.monotonic() - self.started_s) * 1000, 1)

    def log(self, route: str | None, method: str, status: int) -> None:
        """The request's one log event."""
        _LOG.info(
            "request_end",
            request_id=self.request_id,
            route=route,
            method=method,
            status=status,
            key=self.caller.name,
            error=self.error_code,
            ms=self.ms(),
            **self.facts,
        )
