"""What steps and answers tell the metrics."""

from __future__ import annotations

from glmserve.engine import metrics
from glmserve.engine.metrics import Meter
from glmserve.engine.request import Sequence, Timings
from glmserve.engine.runtime.decoder import DecoderSession
from glmserve.engine.scheduler.kv_slots import SlotTable


def observe_step(meter: Meter, rows: list[Sequence], chunks: int, now: float) -> float | None:
    """A step that decoded `rows` and prefilled so many chunks; the shortest time between two tokens of a row."""
    if chunks:
        meter.add(metrics.PREFILL_CHUNKS, chunks)
    if not rows:
        return None
    meter.add(metrics.DECODE_STEPS)
    meter.add(metrics.DECODED_ROWS, len(rows))
    meter.observe(metrics.STEP_ROWS, len(rows))
    gaps = [now - sequence.token_at for sequence in rows]
    meter.observe(metrics.TOKEN_GAP, max(gaps))
    return min(gaps)


def observe_prompt(meter: Meter, sequence: Sequence, now: float) -> None:
    """A prompt was read, for the first time or after a preemption."""
    if sequence.answer:
        meter.observe(metrics.TOKEN_GAP, now - sequence.token_at)
    else:
        meter.observe(metrics.FIRST_TOKEN, now - sequence.request.arrived)


def observe_answer(meter: Meter, timings: Timings) -> None:
    """A complete answer."""
    meter.add(metrics.FINISHED)
    meter.observe(metrics.QUEUE, timings.queue_s)
    meter.observe(metrics.VISION, timings.vision_s)
    meter.observe(metrics.PREFILL, timings.prefill_s)
    meter.observe(metrics.DECODE, timings.decode_s)


def show_capacity(meter: Meter, table: SlotTable, session: DecoderSession) -> None:
    """What there is room for."""
    long_rows = session.rows - session.short_rows
    meter.set(metrics.SLOTS, table.slots)
    meter.set(metrics.KV_CAPACITY, session.short_rows * session.short_tokens + long_rows * session.context)


def show(meter: Meter, table: SlotTable, waiting: int) -> None:
    """Who runs and waits, and how much KV is in use."""
    meter.set(metrics.RUNNING, table.used)
    meter.set(metrics.WAITING, waiting)
    meter.set(metrics.KV_TOKENS, table.tokens)
    meter.set(metrics.KV_CACHED_TOKENS, table.cached_tokens)
