"""Writes log lines to a file that may be full: a line that cannot be written is counted, and nobody fails for it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable


class LineWriter:
    """Each line is one write, so processes may share the file. Where one was cut off, the next begins a new line."""

    def __init__(self, file: int) -> None:
        """`file` is a descriptor, which the caller closes."""
        self._file = file
        self._lock = threading.Lock()
        self._is_cut = False
        self._unreported = 0
        self._report: Callable[[int], object] | None = None

    def report_to(self, report: Callable[[int], object]) -> None:
        """Calls `report` with the number of lost lines, now and whenever more are lost."""
        with self._lock:
            self._report = report
            self._tell()

    def write(self, line: str) -> None:
        """Writes a line that ends with a line break; never raises OSError."""
        data = line.encode("utf-8", "backslashreplace")
        with self._lock:
            data = b"\n" * self._is_cut + data
            try:
                written = os.write(self._file, data)
            except OSError:
                written = 0
            if written < len(data):
                self._is_cut = self._is_cut or written > 0
                self._unreported += 1
                self._tell()
            else:
                self._is_cut = False

    def flush(self) -> None:
        """Nothing is kept back."""

    def _tell(self) -> None:
        if self._report is not None and self._unreported:
            self._report(self._unreported)
            self._unreported = 0
