"""One path for each route: without /v1, or with a slash at its end, an address is the same route."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_KNOWN_APIS = frozenset(
    """
    apply-template assistants audio batches chat completion completions containers conversations detokenize embeddings
    evals files fine_tuning images invocations messages models moderations organization props realtime rerank responses
    score slots threads tokenize tokenizer_info uploads vector_stores videos
    """.split()  # noqa: SIM905
)
"""First names after /v1 that clients of this field know, whether they are served here or not."""
_VERSION = "/v1"


class CanonicalPaths:
    """A WSGI application in front of another: rewrites the path before anything looks at it."""

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ["PATH_INFO"] = canonical(environ.get("PATH_INFO", ""))
        return self._application(environ, start_response)


def canonical(path: str) -> str:
    """The path that limits, logs and routes know an address by.

    Only of what clients ask: a proxy that keeps /metrics to itself must not be passed by another way of writing it.
    """
    if _first_name(path) in _KNOWN_APIS:
        path = f"{_VERSION}{path}"
    return path.rstrip("/") if path.startswith(f"{_VERSION}/") else path


def is_known_api(path: str) -> bool:
    """Whether clients of this field know such a route, so that its absence wants a word of its own."""
    return path.startswith(f"{_VERSION}/") and _first_name(path.removeprefix(_VERSION)) in _KNOWN_APIS


def _first_name(path: str) -> str:
    return path[1:].partition("/")[0]
