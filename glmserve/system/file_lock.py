"""A lock that one process at a time holds on a file; the system frees it when the process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_RETRY_S = 0.05


@contextmanager
def file_lock(path: Path, timeout_s: float = 0.0) -> Iterator[None]:
    """Holds the lock while the body runs; makes the file if there is none, and follows no link in its place.

    Raises TimeoutError when another process still holds it after `timeout_s`, OSError when the file cannot be opened.
    """
    give_up_s = time.monotonic() + timeout_s
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up_s:
                    raise TimeoutError(f"Another process holds {path}.") from None
                time.sleep(_RETRY_S)
        yield
    finally:
        os.close(file)
