"""The engine: one thread that admits requests, runs steps, and emits tokens."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Iterable
from concurrent import futures
from contextlib import suppress

from glmserve.contract import Finish
from glmserve.engine import metrics
from glmserve.engine.logit_edits import edits_of
from glmserve.engine.metrics import Meter
from glmserve.engine.observations import observe_answer, observe_prompt, observe_step, show, show_capacity
from glmserve.engine.request import Done, Event, Failed, Logprobs, Request, Sequence, Tokens
from glmserve.engine.runtime.decoder import DecoderSession, Pace, Sampled
from glmserve.engine.scheduler.chunk_budget import ChunkBudget
from glmserve.engine.scheduler.kv_slots import Move, SlotTable
from glmserve.engine.scheduler.scheduler import Chunk, Scheduler, Waiting
from glmserve.engine.scheduler.wait_queue import Ticket, Tickets, WaitQueue
from glmserve.engine.speculative.proposer import Draft, NgramProposer
from glmserve.engine.step_builder import step_of
from glmserve.errors import (
    BackendDown,
    GlmServeError,
    NumericFault,
    Overloaded,
    PromptTooLong,
)

_log = logging.getLogger(__name__)
_IDLE_WAIT_S = 0.5
_MASK_WAIT_S = 0.002
_LOOK_EVERY_S = 0.25
_JOIN_S = 10.0
_MOST_FAILURES = 3
"""Steps that may fail one after another before the engine calls itself broken and ends."""


class Engine:
    """Runs requests together on one decoder session.

    `submit` may be called from any thread; all else runs on the engine's own. `wait_queue` and `meter` are shared.
    """

    def __init__(
        self,
        session: DecoderSession,
        eos_token_ids: Iterable[int],
        slots: int | None = None,
        chunk_tokens: int = 256,
        min_chunk_tokens: int = 8,
        draft_tokens: int = 0,
        wait_queue: WaitQueue | None = None,
        meter: Meter | None = None,
    ) -> None:
        slots = slots or session.short_rows or session.rows
        self.wait_queue = wait_queue or WaitQueue(64, 1 << 40, slots=slots, long_rows=session.rows - session.short_rows)
        self.meter = meter or Meter()
        self.is_healthy = True
        self._session = session
        self._eos = frozenset(eos_token_ids)
        self._chunk_budget = ChunkBudget(min_chunk_tokens)
        self._proposer = NgramProposer(draft_tokens, min_chunk_tokens)
        self._table = SlotTable(slots, session.rows, session.short_rows, session.short_tokens)
        self._scheduler = Scheduler(self._table, self._chunk_budget, chunk_tokens, min_chunk_tokens)
        self._arrivals: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()  # the wait queue bounds it; None wakes
        self._failures = 0
        self._look_at = 0.0
        self._is_warm = threading.Event()
        self._stopping = threading.Event()
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)

    def start(self) -> None:
        """Returns when the decoder is warm; raises BackendDown when it does not run."""
        show_capacity(self.meter, self._table, self._session)
        self._show()
        self._thread.start()
        self._is_warm.wait()  # as long as whoever starts us allows: START_TIMEOUT_S
        if not self.is_healthy:
            raise BackendDown("The decoder failed to run its first steps; the log says why.")

    def enter(self, tokens: int, max_tokens: int = 0, left_s: float = math.inf) -> Ticket:
        """The ticket of a prompt with one answer; see `enter_all`."""
        return self.enter_all(1, tokens, max_tokens, left_s).one

    def enter_all(self, answers: int, tokens: int, max_tokens: int, left_s: float) -> Tickets:
        """Tickets of the wait queue for so many answers to a prompt of `tokens` tokens; raises PromptTooLong, and what
        the wait queue refuses them with: Overloaded also when an answer of `max_tokens` would not end in `left_s`."""
        if tokens >= self._session.context:
            raise PromptTooLong(f"The prompt has {tokens} tokens; at most {self._session.context - 1} fit.", "prompt")
        try:
            most = min(max_tokens, self._session.context - tokens)
            return self.wait_queue.enter_all(answers, tokens, most, left_s, self._table.begins_long(tokens, most))
        except Overloaded:
            self.meter.add(metrics.REFUSED)
            raise

    def submit(self, request: Request, ticket: Ticket | None = None) -> None:
        """Accepts a request, with the ticket it holds already or a new one; its events follow.

        Raises PromptTooLong, Overloaded or BackendDown instead, and then gives the ticket back.
        """
        assert request.grammar is None or request.grammar.first_mask().done()
        if ticket is None:
            left_s = request.deadline - time.monotonic()
            ticket = self.enter(request.prompt.length, request.sampling.max_tokens, left_s)
        with self._closing:  # so that no request slips in behind the last sweep
            if not self._stopping.is_set() and self.is_healthy:
                self._arrivals.put(Waiting(request, ticket))
                return
        ticket.leave()
        raise BackendDown("The engine is not running.")

    def stop(self) -> None:
        """Ends the thread after its step; whatever still runs or waits fails with BackendDown."""
        self._stopping.set()
        self._arrivals.put(None)
        self._thread.join(_JOIN_S)

    def _loop(self) -> None:
        try:
            self._learn(self._session.warm_up())
            self._is_warm.set()
            while not self._stopping.is_set() and self._failures < _MOST_FAILURES:
                self._take_arrivals()
                self._turn()
                self._show()
        except Exception:
            _log.exception("the engine's thread ended")
        finally:
            with self._closing:
                self.is_healthy = False
            self._is_warm.set()
            self._end_all(BackendDown("The engine has stopped."))
            self._show()

    def _learn(self, pace: Pace | None) -> None:
        """What was measured at the start bounds the first chunk, and tells a full queue when to come back."""
        if pace is None:
            return
        self.meter.set(metrics.STEP_S, pace.step_s)
        self.meter.set(metrics.PROMPT_TOKEN_S, pace.prompt_token_s)
        self._chunk_budget.observe_step(1, 0, pace.step_s)
        self._chunk_budget.observe_step(0, 1, pace.prompt_token_s)
        self.wait_queue.observe_pace(pace.step_s)

    def _turn(self) -> None:
        """A token for every decoded row, and prefill; a step that fails ends the requests in it."""
        try:
            self._drop_the_gone()
            self._grow()
            chunks = self._chunks()
            *apart, rows = self._table.runs(reads=bool(chunks))
            for alone in apart:
                self._step(alone, [])
            self._step(rows, chunks)
        except Exception:
            _log.exception("a step failed")
            self._failures += 1
            self._fail_running(GlmServeError())

    def _take_arrivals(self) -> None:
        """Hands new requests to the scheduler; sleeps until one comes when the engine is idle."""
        with suppress(queue.Empty):
            arrival = self._arrivals.get(timeout=_IDLE_WAIT_S if self._scheduler.is_idle else 0.0)
            while arrival is not None:
                self._scheduler.waiting.append(arrival)
                arrival = self._arrivals.get_nowait()

    def _drop_the_gone(self) -> None:
        """Ends requests that are cancelled or past their deadline, waiting or running."""
        now, waiting = time.monotonic(), self._scheduler.waiting
        for entry in [entry for entry in waiting if entry.ticket.has_left]:
            waiting.remove(entry)  # another thread has told its client
        gone = [(entry, error) for entry in waiting if (error := entry.request.reason_to_end(now))]
        for entry, error in gone:
            waiting.remove(entry)
            entry.ticket.leave()
            self._fail(entry.request, error)
        self._refuse_the_late(now)
        for sequence in (*self._table.decoding, *self._table.prefilling, *self._scheduler.preempted):
            ending = sequence.request.reason_to_end(now) or sequence.mask_fault
            if ending:
                self._end(sequence, self._failed(ending))

    def _refuse_the_late(self, now: float) -> None:
        """Refuses waiting requests once it shows that they cannot end in time; looks a few times a second."""
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_EVERY_S
        late = self.wait_queue.late()
        for entry in [entry for entry in self._scheduler.waiting if entry.ticket.job in late]:
            self._scheduler.waiting.remove(entry)
            refusal = self.wait_queue.overloaded()
            entry.ticket.leave()
            self.meter.add(metrics.REFUSED)
            self._emit(entry.request, Failed(refusal))

    def _chunks(self) -> list[Chunk]:
        """The chunks that this step prefills."""
        prefill = self._scheduler.next_prefill(time.monotonic())
        if prefill is None:
            return []
        self._move(prefill.moves)
        for chunk in prefill.chunks:
            grammar = chunk.sequence.request.grammar
            if grammar and chunk.begins_answer:
                chunk.sequence.mask = grammar.first_mask()
        return prefill.chunks

    def _grow(self) -> None:
        """Sequences whose rows are full move to longer ones, the oldest first; where none is left, the youngest of them
        all loses its row."""
        for sequence in sorted(self._table.outgrown, key=lambda outgrown: outgrown.request.arrived):
            sequence.outgrow()
            loser = self._scheduler.gives_way(sequence)
            if loser is not None:
                self._preempt(loser)
            if loser is not sequence:
                self._move(self._table.grow(sequence))

    def _preempt(self, sequence: Sequence) -> None:
        """Takes a running sequence's row away; its stream pauses until it has one again."""
        self.meter.add(metrics.PREEMPTIONS)
        self._move(self._scheduler.preempt(sequence))

    def _step(self, rows: list[Sequence], chunks: list[Chunk]) -> None:
        """One run of the decoder. A row whose grammar mask is late samples again in the next step; where no row would
        keep its token, none is decoded."""
        late = [sequence.mask for sequence in rows if sequence.mask and not sequence.mask.done()]
        if not chunks and late and len(late) == len(rows):
            futures.wait(late, _MASK_WAIT_S, futures.FIRST_COMPLETED)
        is_ready = [sequence.has_mask for sequence in rows]
        if chunks or any(is_ready):
            self._run(rows if any(is_ready) else [], is_ready, chunks)
            self._failures = 0  # only a step that ran something resets it

    def _run(self, rows: list[Sequence], is_ready: list[bool], chunks: list[Chunk]) -> None:
        for chunk in chunks:
            if chunk.start == chunk.sequence.cached:
                self._begin(chunk.sequence)
        draft = None if chunks else self._draft(rows)
        began = time.monotonic()
        step = step_of(rows, chunks, self._table, self._session, draft)
        sampled = self._session.run(step)
        now = time.monotonic()
        ahead = self._drawn_ahead(draft, sampled, rows)
        if not chunks:
            self._proposer.observe_step(len(rows), draft, now - began)
        if draft is None:
            self._chunk_budget.observe_step(len(rows), sum(chunk.tokens for chunk in chunks), now - began)
        if (gap_s := observe_step(self.meter, rows, len(chunks), now)) is not None:
            self.wait_queue.observe_pace(gap_s * len(rows) / (len(rows) + len(ahead)))
        ready = [(at, sequence) for at, sequence in enumerate(rows) if is_ready[at]]
        drawn = [(len(rows) + at, chunk) for at, chunk in enumerate(chunks)]
        done = [(at, chunk.sequence) for at, chunk in drawn if chunk.begins_answer]
        broken = [chunk.sequence for at, chunk in drawn if not chunk.begins_answer and sampled.tokens[at] < 0]
        for _, sequence in ready:  # all lengths before any move, which copies `length` tokens
            sequence.length += 1
            sequence.token_at = now
        if draft is not None:
            draft.sequence.length += len(ahead)
        for chunk in chunks:
            chunk.sequence.length = chunk.stop
        for chunk in chunks:  # all of them before any ends, so that rows stay dense
            if chunk.is_last:
                self._rejoin(chunk.sequence, now)
        for sequence in broken:  # before any other ends, so that nobody reuses their KV
            self._break(sequence)
        logprobs = sampled.logprobs(step.sampler.logprob_rows)
        for at, sequence in (*ready, *done):
            goes_on = self._accept(sequence, int(sampled.tokens[at]), logprobs.get(at))
            if draft is not None and draft.sequence is sequence:
                for token in ahead:
                    goes_on = goes_on and self._accept(sequence, token, None)

    def _draft(self, rows: list[Sequence]) -> Draft | None:
        """Draft tokens for one of the rows, unless these are of two sizes: then both groups of attention are taken."""
        room = self._table.room(rows[0].row)
        if room != self._table.room(rows[-1].row):
            return None
        return self._proposer.propose(rows, min(room, self._session.context))

    def _drawn_ahead(self, draft: Draft | None, sampled: Sampled, rows: list[Sequence]) -> list[int]:
        """The tokens sampled after the accepted draft tokens."""
        if draft is None:
            return []
        place, count = rows.index(draft.sequence), len(rows)
        drawn = [int(sampled.tokens[at]) for at in (place, *range(count, count + len(draft.tokens)))]
        right = draft.agreement(drawn)
        self.meter.add(metrics.DRAFTED_TOKENS, len(draft.tokens))
        self.meter.add(metrics.ACCEPTED_TOKENS, right)
        return drawn[1 : right + 1]

    def _rejoin(self, sequence: Sequence, now: float) -> None:
        """Its prompt is read: it decodes from now on, for the first time or again."""
        self._move(self._table.promote())
        observe_prompt(self.meter, sequence, now)
        sequence.first_token_at = sequence.first_token_at or now
        sequence.token_at = now

    def _begin(self, sequence: Sequence) -> None:
        if sequence.preemptions:
            return
        request, sequence.prompt_cached = sequence.request, sequence.cached
        self.meter.add(metrics.PROMPT_TOKENS, request.prompt.length)
        self.meter.add(metrics.CACHED_TOKENS, sequence.cached)
        sequence.edits = edits_of(request.sampling, request.prompt.input_ids, self._eos, self._session.vocabulary)

    def _accept(self, sequence: Sequence, token: int, logprobs: Logprobs | None) -> bool:
        """Emits a sampled token, or ends the request; returns whether the request goes on."""
        request = sequence.request
        if token < 0:
            self._break(sequence)
            return False
        is_eos = token in self._eos and not request.sampling.ignore_eos
        if is_eos or token in request.sampling.stop_token_ids:
            self._finish(sequence, Finish.STOP, None if is_eos else token)
            return False
        sequence.answer.append(token)
        self._proposer.observe_token(sequence, token)
        self.meter.add(metrics.GENERATED_TOKENS)
        self._emit(request, Tokens([token], logprobs and logprobs.cut(request.sampling.top_logprobs)))
        if len(sequence.answer) >= request.sampling.max_tokens or sequence.length >= self._session.context:
            self._finish(sequence, Finish.LENGTH)
            return False
        if sequence.edits is not None:
            sequence.edits.add(token)
        if request.grammar:
            sequence.mask = request.grammar.next_mask(token)
        return True

    def _break(self, sequence: Sequence) -> None:
        """Ends a request whose numbers are not finite, and drops its KV."""
        error = NumericFault("The model's numbers stopped being finite for this request.")
        self._end(sequence, self._failed(error), keep=False)

    def _finish(self, sequence: Sequence, finish: Finish, stop_token: int | None = None) -> None:
        timings = sequence.timings(time.monotonic())
        self._look_at = 0.0  # at those who wait: more is known now
        most = min(sequence.request.sampling.max_tokens, self._session.context - sequence.request.prompt.length)
        self.wait_queue.observe_answer(most, len(sequence.answer), timings.prefill_s)
        observe_answer(self.meter, timings)
        stop_tokens = () if stop_token is None else (stop_token,)
        self._end(sequence, Done(finish, timings, sequence.prompt_cached, stop_tokens=stop_tokens))

    def _end(self, sequence: Sequence, last: Event, keep: bool = True) -> None:
        """Frees a sequence's row and emits its last event; the moves come last, as one of them may fail."""
        moves = self._scheduler.retire(sequence, keep)
        sequence.give_back()
        self.wait_queue.request_ended()
        self._emit(sequence.request, last)
        self._move(moves)

    def _move(self, moves: list[Move]) -> None:
        for move in moves:
            self._session.move(move.source, move.target, move.length)

    def _end_all(self, error: GlmServeError) -> None:
        self._fail_running(error)
        for sequence in list(self._scheduler.preempted):
            self._end(sequence, self._failed(error))
        while not self._arrivals.empty():
            if (arrival := self._arrivals.get_nowait()) is not None:
                self._scheduler.waiting.append(arrival)
        while self._scheduler.waiting:
            entry = self._scheduler.waiting.popleft()
            entry.ticket.leave()
            self._fail(entry.request, error)

    def _fail_running(self, error: GlmServeError) -> None:
        for sequence in self._table.drop_all():
            sequence.give_back()
            self._fail(sequence.request, error)

    def _fail(self, request: Request, error: GlmServeError) -> None:
        self._emit(request, self._failed(error))

    def _failed(self, error: GlmServeError) -> Failed:
        self.meter.add(metrics.FAILED)
        return Failed(error)

    def _emit(self, request: Request, event: Event) -> None:
        """Emits an event; a receiver that fails loses only its own events."""
        try:
            request.emit(event)
        except Exception:
            _log.exception("an event could not be delivered")

    def _show(self) -> None:
        show(self.meter, self._table, self.wait_queue.requests + len(self._scheduler.preempted))
        self.meter.set(metrics.HEALTHY, float(self.is_healthy))
        self.meter.set(metrics.LOOP_AT, time.time())
