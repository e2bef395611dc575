"""The audit log: who asked about which image and when; an image is logged as its hash."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path

from gateway.observability.line_writer import LineWriter
from gateway.observability.request_record import RequestRecord


class AuditLog:
    """Appends a JSON line for each request that ended; each line is one write, so workers may share the file."""

    def __init__(self, path: Path) -> None:
        """Opens the file; raises OSError when it cannot be written."""
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.lines = LineWriter(self._file)

    def write(self, record: RequestRecord, route: str | None, status: int) -> None:
        line = {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "request_id": record.request_id,
            "key": record.caller.name,
            "address": record.caller.address,
            "route": route,
            "status": status,
            "images": record.image_hashes,
        }
        self.lines.write(json.dumps(line) + "\n")

    def close(self) -> None:
        os.close(self._file)
