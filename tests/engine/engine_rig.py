"""An engine on the fake session, and a receiver that keeps a request's events."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from fake_decoder import FakeSession

from glmserve.contract import Finish
from glmserve.engine.engine import Engine
from glmserve.engine.request import Done, Event, Failed, Prompt, Request, Tokens
from glmserve.sampling_parameters import Sampling

WAIT_S = 10.0
EOS = 999


class Receiver:
    """Collects the events of one request; `wait` returns at its last. `at_first_token` runs on the engine's thread."""

    def __init__(self, at_first_token: Callable[[], None] = lambda: None) -> None:
        self._at_first_token = at_first_token
        self.events: list[Event] = []
        self.got_token = threading.Event()
        self._ended = threading.Event()
        self.cancelled = threading.Event()

    def __call__(self, event: Event) -> None:
        assert not self._ended.is_set(), "an event after the last one"
        self.events.append(event)
        if isinstance(event, Tokens) and not self.got_token.is_set():
            self._at_first_token()
            self.got_token.set()
        if event.is_last:
            self._ended.set()

    def wait(self) -> Event:
        assert self._ended.wait(WAIT_S), "the request never ended"
        return self.events[-1]

    @property
    def tokens(self) -> list[int]:
        return [token for event in self.events if isinstance(event, Tokens) for token in event.tokens]

    @property
    def finish(self) -> Finish:
        last = self.wait()
        assert isinstance(last, Done), last
        return last.finish

    @property
    def code(self) -> str:
        last = self.wait()
        assert isinstance(last, Failed), last
        return last.error.code


def prompt(tokens: list[int]) -> Prompt:
    ids = np.asarray(tokens, np.int64)
    positions = np.broadcast_to(np.arange(len(ids)), (3, len(ids)))
    return Prompt(ids, positions, 0, [], np.zeros(len(ids), np.int64), ids)


def request(
    tokens: list[int],
    receiver: Receiver,
    max_tokens: int = 5,
    deadline_s: float = 60.0,
    sampling: Sampling | None = None,
    **more: Any,
) -> Request:
    return Request(
        prompt=prompt(tokens),
        sampling=replace(sampling or Sampling(), max_tokens=max_tokens),
        deadline=time.monotonic() + deadline_s,
        emit=receiver,
        is_cancelled=receiver.cancelled.is_set,
        **more,
    )


class GatedSession(FakeSession):
    """A fake that waits at the gate before each run, so that a test decides when steps happen."""

    def __init__(self, **shape: Any) -> None:
        super().__init__(**shape)
        self.gate = threading.Event()
        self.gate.set()

    def run(self, step):  # type: ignore[no-untyped-def]
        assert self.gate.wait(WAIT_S)
        return super().run(step)


@contextmanager
def running(
    session: FakeSession | None = None, kind: type[Engine] = Engine, **options: object
) -> Iterator[tuple[Engine, FakeSession]]:
    """A started engine; at the end it must be idle again with all its rows free."""
    session = session or FakeSession()
    engine = kind(session, (EOS,), **options)  # type: ignore[arg-type]
    engine.start()
    try:
        yield engine, session
    finally:
        engine.stop()
        engine._table.check()
        assert engine._table.used == 0 and engine.wait_queue.requests == 0
