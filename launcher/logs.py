"""Where log events go: into a file while a person reads our sentences, else to stderr for whatever collects them."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_TAIL_LINES = 25


@dataclass(frozen=True)
class EventLog:
    """What a child writes its log events to; `path` is None when that is stderr."""

    stream: IO[bytes]
    path: Path | None

    @property
    def tail(self) -> str:
        """The last lines, to be shown after a failure; on stderr they have been seen already."""
        return f"\n{log_tail(self.path)}" if self.path else ""


@contextmanager
def event_log(name: str) -> Iterator[EventLog]:
    """A log for as long as the block runs; a file is removed after it."""
    if not sys.stderr.isatty():
        yield EventLog(sys.stderr.buffer, None)
        return
    with tempfile.TemporaryDirectory(prefix="glm-logs-") as folder:
        path = Path(folder) / f"{name}.log"
        with path.open("wb") as file:
            yield EventLog(file, path)


def log_tail(path: Path) -> str:
    """The last lines of a log under a heading."""
    lines = path.read_text("utf-8", errors="replace").splitlines()
    return "\n".join(["The end of its log:", *(f"  {line}" for line in lines[-_TAIL_LINES:])])
