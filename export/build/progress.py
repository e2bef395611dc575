"""Shows how far long work has come: a bar with rate and remaining time on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

_PLAIN_EVERY_S = 5.0
_MB = 1e6

Advance = Callable[[int], None]
"""Called with the number of bytes just done, by any thread."""


@contextmanager
def byte_progress(console: Console, title: str, total_bytes: int) -> Iterator[Advance]:
    """Reports on `total_bytes` of work while the body runs."""
    if not console.is_terminal:
        yield _plain_lines(console, title, total_bytes)
        return
    columns = (TextColumn("{task.description:<10}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(title, total=total_bytes)
        yield lambda count: bar.advance(task, count)


def _plain_lines(console: Console, title: str, total_bytes: int) -> Advance:
    began = last = time.monotonic()
    done = 0
    lock = threading.Lock()

    def advance(count: int) -> None:
        nonlocal done, last
        with lock:
            done += count
            now = time.monotonic()
            if now - last < _PLAIN_EVERY_S and not done >= total_bytes > 0:
                return
            last = now
            rate = done / max(now - began, 1e-9)
            left_s = max(0, total_bytes - done) / max(rate, 1e-9)
            console.print(
                f"{title}: {done / _MB:.0f} of {total_bytes / _MB:.0f} MB, {rate / _MB:.0f} MB/s, {left_s:.0f} s left"
            )

    return advance
