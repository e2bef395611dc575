"""Keeps other websites, open in a browser on this machine, from using a gateway that has no keys to ask for."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

from werkzeug.wrappers import Request

from gateway.errors import Forbidden, NotJson

_PROXY_VARIABLES = ("HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP")
_PROXY_PREFIX = "HTTP_X_FORWARDED_"
"""Headers by their names in a WSGI environment."""
_LONGEST_HOST = 300  # the longest name has 253 characters
_KEPT = 1024
"""How many hosts and addresses are remembered; the longest of both take less than a megabyte."""
_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")


def check_content_type(request: Request, takes_forms: bool) -> None:
    """Raises NotJson: a page of any site may send the other kinds of body without asking first (a simple request)."""
    sent = request.mimetype
    if sent == "application/json" or (sent.startswith("application/") and sent.endswith("+json")):
        return
    if takes_forms and sent in _FORMS:
        return
    accepted = " or ".join(("application/json", *_FORMS)) if takes_forms else "application/json"
    raise NotJson(f"The Content-Type of this request is {_shown(sent)}; {accepted} is accepted.")


def check_host(request: Request) -> None:
    """Raises Forbidden for a name that another site has had resolved to this machine (DNS rebinding)."""
    if not is_local_host(request):
        raise Forbidden(
            "This service has no API keys and answers only to this machine's own name: use http://127.0.0.1 or "
            "http://localhost. (GLM_GATEWAY_NO_AUTH=true allows every name.)"
        )


def check_origin(request: Request, listed: tuple[str, ...]) -> None:
    """Raises Forbidden for a request that a page of another site has sent."""
    origin = request.headers.get("Origin")
    if origin is None or origin in listed:
        return
    if origin.lower() != f"{request.scheme}://{request.host}".lower():
        raise Forbidden(
            "A page of another site sent this request, and this service has no API keys: list the page's origin in "
            "GLM_GATEWAY_CORS_ORIGINS, or use keys."
        )


def is_local_host(request: Request) -> bool:
    """Whether the request was sent to a name or address of this machine's loopback; HTTP/1.0 may leave it out."""
    sent = request.headers.get("Host")
    return not sent or (len(sent) <= _LONGEST_HOST and _is_local(sent))


@lru_cache(_KEPT)
def _is_local(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    name = name.removesuffix(".")
    return name == "localhost" or name.endswith(".localhost") or is_loopback_address(name)


@lru_cache(_KEPT)
def is_loopback_address(name: str) -> bool:
    """Whether this is an address, and one of this machine's loopback."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def has_passed_a_proxy(request: Request) -> bool:
    """Whether a proxy says so; one that says nothing cannot be told from a program on its machine."""
    return any(name in _PROXY_VARIABLES or name.startswith(_PROXY_PREFIX) for name in request.environ)


def _shown(mimetype: str) -> str:
    return mimetype[:64] if mimetype.isprintable() and mimetype else "missing"
