"""Asks a local address over HTTP, past any proxy and with a short timeout."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any

START_TIMEOUT_VARIABLE = "START_TIMEOUT_S"
"""Sets how long the launcher waits for the models to load."""


@dataclass(frozen=True)
class Reply:
    """A status and, where the body was a JSON object, its members."""

    status: int
    values: dict[str, Any]


def get(host: str, port: int, path: str, timeout_s: float) -> Reply | None:
    """The reply to a GET, or None when nobody answers in time."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(65_536)
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    try:
        values = json.loads(body)
    except ValueError:
        values = None
    return Reply(response.status, values if isinstance(values, dict) else {})
