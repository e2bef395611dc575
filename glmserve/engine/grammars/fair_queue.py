"""Runs jobs one at a time on its own thread, each key in its turn: one key's many jobs delay only its own."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable

from glmserve.errors import BackendDown

Job = Callable[[], None]
"""Raises nothing."""


class FairQueue:
    """At most one job runs; the key that has had its turn goes to the end. Whoever adds jobs bounds how many wait."""

    def __init__(self, name: str, niceness: int = 0) -> None:
        self._niceness = niceness
        self._changed = threading.Condition()
        self._waiting: OrderedDict[int, deque[Job]] = OrderedDict()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def add(self, key: int, job: Job) -> None:
        """Raises BackendDown when the queue is closed."""
        with self._changed:
            if self._is_closed:
                raise BackendDown("The engine is stopping.")
            self._waiting.setdefault(key, deque()).append(job)
            self._changed.notify()

    def close(self) -> None:
        """Takes no more jobs; returns when those that wait have run."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
        while (job := self._next()) is not None:
            job()

    def _next(self) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if not self._waiting:
                return None
            key, jobs = self._waiting.popitem(last=False)
            job = jobs.popleft()
            if jobs:
                self._waiting[key] = jobs
            return job
