"""The security and CORS headers of every response."""

from __future__ import annotations

import re

from flask import Response, request

_ALWAYS = {  # unless the response sets its own
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
_ALLOWED_HEADERS = ("Authorization", "Content-Type", "X-API-Key", "X-Request-ID", "X-Request-Timeout")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LIMITS = [f"X-RateLimit-{name}" for name in ("Limit", "Remaining", "Reset")]
_SHOWN_HEADERS = ", ".join(
    [
        "X-Request-ID",
        "Retry-After",
        *_LIMITS,
        *(f"{name}-{what}" for what in ("Requests", "Tokens") for name in _LIMITS),
    ]
)
_PREFLIGHT_S = 600


def harden(response: Response) -> None:
    """Adds the security headers that the response does not set itself."""
    present = {name.lower() for name, _ in response.headers}
    for name, value in _ALWAYS.items():
        if name.lower() not in present:
            response.headers.add(name, value)


def share(response: Response, origins: tuple[str, ...]) -> None:
    """Adds the CORS headers for the sites on the allow list."""
    origin = request.headers.get("Origin")
    if origins:
        response.headers.add("Vary", "Origin")
    if origin is None or origin not in origins:
        return
    response.headers["Access-Control-Allow-Origin"] = origin
    response.headers["Access-Control-Expose-Headers"] = _SHOWN_HEADERS
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    if request.method == "OPTIONS":
        response.headers["Access-Control-Allow-Methods"] = "GET, POST"
        response.headers["Access-Control-Allow-Headers"] = ", ".join((*_ALLOWED_HEADERS, *_wanted_headers()))
        response.headers["Access-Control-Max-Age"] = str(_PREFLIGHT_S)


def _wanted_headers() -> list[str]:
    """Other headers that a listed site wants to send: OpenAI's SDK has a dozen that we do not read."""
    wanted = (name.strip() for name in request.headers.get("Access-Control-Request-Headers", "").split(","))
    return [name for name in wanted if _NAME.fullmatch(name)]
