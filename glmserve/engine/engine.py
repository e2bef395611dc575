"""The engine: one thread that takes requests in, runs a step, hands tokens out, and starts again."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from glmserve.contract import Finish
from glmserve.engine.request import Done, Event, Failed, Request, Running, Tokens
from glmserve.engine.sampling import sampler_inputs
from glmserve.engine.scheduler import Chunk, Scheduler
from glmserve.engine.session import DecoderSession, Step
from glmserve.engine.slots import Move, SlotTable
from glmserve.errors import BackendDown, Cancelled, DeadlineExceeded, GlmServeError, Overloaded, PromptTooLong

_log = logging.getLogger(__name__)
_IDLE_WAIT_S = 0.5
_JOIN_S = 10.0


@dataclass
class Counters:
    """What the engine has done so far; written by its thread only, read by anyone."""

    prefill_chunks: int = 0
    decode_steps: int = 0
    decoded_rows: int = 0
    generated_tokens: int = 0
    prompt_tokens: int = 0
    finished: int = 0
    failed: int = 0


class Engine:
    """Runs requests together on one decoder session.

    `submit` may be called from any thread; everything else happens on the engine's own. `observe` is called there once
    a step with the counters and the numbers of running and waiting requests.
    """

    def __init__(
        self,
        session: DecoderSession,
        eos_token_ids: tuple[int, ...],
        chunk_tokens: int = 256,
        max_waiting: int = 64,
        observe: Callable[[Counters, int, int], None] | None = None,
    ) -> None:
        self.counters = Counters()
        self.is_healthy = True
        self._session = session
        self._eos = frozenset(eos_token_ids)
        self._table = SlotTable(session.slots)
        self._scheduler = Scheduler(self._table, chunk_tokens, max_waiting)
        self._arrivals: queue.Queue[Request] = queue.Queue(max_waiting)
        self._observe = observe
        self._stopping = threading.Event()
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Takes a request in; its events follow. Raises PromptTooLong, Overloaded or BackendDown at once instead."""
        if request.prompt.length >= self._session.context:
            raise PromptTooLong(
                f"The prompt has {request.prompt.length} tokens; at most {self._session.context - 1} fit.", "prompt"
            )
        with self._closing:  # so that no request slips in behind the last sweep
            if self._stopping.is_set() or not self.is_healthy:
                raise BackendDown("The engine is not running.")
            try:
                self._arrivals.put_nowait(request)
            except queue.Full:
                raise Overloaded("The waiting line is full; try again shortly.") from None

    def stop(self) -> None:
        """Ends the thread after its step; whatever still runs or waits fails with BackendDown."""
        self._stopping.set()
        self._thread.join(_JOIN_S)

    def _loop(self) -> None:
        try:
            while not self._stopping.is_set():
                self._take_arrivals()
                self._drop_the_gone()
                self.step()
        except Exception:
            _log.exception("the engine's thread ended")
        finally:
            with self._closing:
                self.is_healthy = False
            self._end_all(BackendDown("The engine has stopped."))

    def step(self) -> None:
        """One prompt chunk, then one token for every decoded row; a failing run ends the requests it held."""
        try:
            chunk = self._scheduler.next_chunk(time.monotonic())
            if chunk:
                self._prefill(chunk)
            if self._table.decoding:
                self._decode()
        except Exception:
            _log.exception("a step failed")
            self._end_running(GlmServeError())
        if self._observe:
            self._observe(self.counters, self._table.used, len(self._scheduler.waiting))

    def _take_arrivals(self) -> None:
        """Moves new requests into the waiting line, sleeping for the first when there is nothing else to do."""
        try:
            if self._scheduler.is_idle:
                self._add(self._arrivals.get(timeout=_IDLE_WAIT_S))
            while True:
                self._add(self._arrivals.get_nowait())
        except queue.Empty:
            return

    def _add(self, request: Request) -> None:
        try:
            self._scheduler.add(request)
        except Overloaded as error:
            self._emit(request, Failed(error))

    def _drop_the_gone(self) -> None:
        """Ends requests whose client left or whose time is up, wherever they stand."""
        now = time.monotonic()
        waiting = self._scheduler.waiting
        for request in [r for r in waiting if _reason_to_end(r, now)]:
            waiting.remove(request)
            self._fail(request, _reason_to_end(request, now) or Cancelled())
        for running in self._running():
            error = _reason_to_end(running.request, now)
            if error:
                self._retire(running)
                self._fail(running.request, error)

    def _prefill(self, chunk: Chunk) -> None:
        running, prompt = chunk.running, chunk.running.request.prompt
        part = slice(chunk.start, chunk.stop)
        slots = prompt.image_slot[None, part]
        step = Step(
            first_row=running.row,
            input_ids=prompt.input_ids[None, part],
            image_slot=slots,
            positions=prompt.positions[:, None, part],
            lengths=np.array([chunk.start], np.int32),
            features=prompt.features if slots.any() else None,
            sampler=sampler_inputs([(running.request.sampling, 0)], self._session.candidates),
        )
        tokens = self._session.run(step)
        running.length = chunk.stop
        self.counters.prefill_chunks += 1
        self.counters.prompt_tokens += chunk.stop - chunk.start
        if chunk.is_last:
            running.first_token_at = time.monotonic()
            self._move(self._table.promote())
            self._accept(running, int(tokens[0]))

    def _decode(self) -> None:
        rows = list(self._table.decoding)
        lengths = np.array([r.length for r in rows], np.int32)
        at = lengths + np.array([r.request.prompt.delta for r in rows], np.int32)
        step = Step(
            first_row=0,
            input_ids=np.array([[r.last_token] for r in rows], np.int64),
            image_slot=np.zeros((len(rows), 1), np.int64),
            positions=np.broadcast_to(at.astype(np.int64)[None, :, None], (3, len(rows), 1)),
            lengths=lengths,
            features=None,
            sampler=sampler_inputs([(r.request.sampling, r.generated) for r in rows], self._session.candidates),
        )
        tokens = self._session.run(step)
        self.counters.decode_steps += 1
        self.counters.decoded_rows += len(rows)
        for running in rows:  # all of them before any ends: a row that moves takes its `length` tokens along
            running.length += 1
        for running, token in zip(rows, tokens, strict=True):
            self._accept(running, int(token))

    def _accept(self, running: Running, token: int) -> None:
        """Hands a sampled token out, or ends the request with it."""
        if token in self._eos:
            self._finish(running, Finish.STOP)
            return
        running.last_token = token
        running.generated += 1
        self.counters.generated_tokens += 1
        self._emit(running.request, Tokens([token]))
        if running.generated >= running.request.max_tokens or running.length >= self._session.context:
            self._finish(running, Finish.LENGTH)

    def _finish(self, running: Running, finish: Finish) -> None:
        self._retire(running)
        self.counters.finished += 1
        self._emit(running.request, Done(finish, running.timings(time.monotonic())))

    def _retire(self, running: Running) -> None:
        self._move(self._table.retire(running))

    def _move(self, move: Move | None) -> None:
        if move:
            self._session.move(move.source, move.target, move.length)

    def _running(self) -> list[Running]:
        prefilling = self._table.prefilling
        return [*self._table.decoding, *([prefilling] if prefilling else [])]

    def _end_running(self, error: GlmServeError) -> None:
        """Ends every request that holds a row; the rows' contents no longer matter, so nothing is moved."""
        ended = self._running()
        self._table.decoding.clear()
        self._table.prefilling = None
        for running in ended:
            self._fail(running.request, error)

    def _end_all(self, error: GlmServeError) -> None:
        self._end_running(error)
        while self._scheduler.waiting:
            self._fail(self._scheduler.waiting.popleft(), error)
        while not self._arrivals.empty():
            self._fail(self._arrivals.get_nowait(), error)

    def _fail(self, request: Request, error: GlmServeError) -> None:
        self.counters.failed += 1
        self._emit(request, Failed(error))

    def _emit(self, request: Request, event: Event) -> None:
        """Delivers an event; a receiver that fails loses its own events only."""
        try:
            request.emit(event)
        except Exception:
            _log.exception("an event could not be delivered")


def _reason_to_end(request: Request, now: float) -> GlmServeError | None:
    if request.is_cancelled():
        return Cancelled("The client went away.")
    if now >= request.deadline:
        return DeadlineExceeded("The request's time ran out before its answer was complete.")
    return None
