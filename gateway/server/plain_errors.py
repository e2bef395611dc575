"""What gunicorn itself refuses, a malformed request, is answered in JSON like everything else, in our words."""

from __future__ import annotations

import json
import secrets
from typing import Any

from gunicorn import util  # type: ignore[import-untyped]

_SENTENCES = {
    403: "This request is not allowed.",
    414: "The address is too long.",
    417: "The request expects something that this service does not do.",
    431: "The request's headers are too large.",
    500: "The service failed to answer this request.",
    501: "The service does not read this Transfer-Encoding.",
}
_NO_REQUEST = "This is not an HTTP request that can be read."


def write_error(sock: Any, status: int, reason: str, _library_text: str) -> None:
    """Takes the place of `gunicorn.util.write_error`; the request's path is unknown, so the shape is always ours."""
    request_id = secrets.token_hex(16)
    sentence = _SENTENCES.get(status, _NO_REQUEST)
    body = json.dumps({"error": sentence, "success": False, "request_id": request_id}).encode()
    head = (
        f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"X-Request-ID: {request_id}\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    util.write_nonblock(sock, head.encode() + body)
