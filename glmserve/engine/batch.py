"""Builds the arrays of one step from the requests that take part in it."""

from __future__ import annotations

import numpy as np

from glmserve.engine.request import Running
from glmserve.engine.sampling import Draw, sampler_inputs
from glmserve.engine.scheduler import Chunk
from glmserve.engine.session import DecoderSession, Step
from glmserve.engine.slots import SlotTable


def prefill_step(chunks: list[Chunk], session: DecoderSession) -> Step:
    """Chunks of prompts side by side, the shorter ones padded at their end."""
    longest = max(chunk.tokens for chunk in chunks)
    rows = len(chunks)
    input_ids, image_slot = np.zeros((rows, longest), np.int64), np.zeros((rows, longest), np.int64)
    positions = np.zeros((3, rows, longest), np.int64)
    features, offset = [np.zeros((1, 0), np.float32)], 0
    for row, chunk in enumerate(chunks):
        prompt, part = chunk.running.request.prompt, slice(chunk.start, chunk.stop)
        input_ids[row, : chunk.tokens] = prompt.input_ids[part]
        positions[:, row, : chunk.tokens] = prompt.positions[:, part]
        slots = prompt.image_slot[part]
        if slots.any():
            first, last = int(slots[slots > 0].min()), int(slots.max())
            image_slot[row, : chunk.tokens] = np.where(slots > 0, slots - first + 1 + offset, 0)
            features.append(prompt.features[first : last + 1])
            offset += last - first + 1
    width = features[-1].shape[1]
    features[0] = np.zeros((1, width), np.float32)  # row 0 stands for text
    return Step(
        first_row=chunks[0].running.row,
        input_ids=input_ids,
        image_slot=image_slot,
        positions=positions,
        lengths=np.array([chunk.start for chunk in chunks], np.int32),
        new=np.array([chunk.tokens for chunk in chunks], np.int64),
        features=np.concatenate(features) if offset else None,
        sampler=sampler_inputs([_draw(chunk.running) for chunk in chunks], session.candidates, session.vocabulary),
        parked=None,
    )


def decode_step(rows: list[Running], table: SlotTable, session: DecoderSession) -> Step:
    """The newest token of every decoded row."""
    count = len(rows)
    lengths = np.array([running.length for running in rows], np.int32)
    at = lengths + np.array([running.request.prompt.delta for running in rows], np.int64)
    return Step(
        first_row=0,
        input_ids=np.array([[running.answer[-1]] for running in rows], np.int64),
        image_slot=np.zeros((count, 1), np.int64),
        positions=np.broadcast_to(at[None, :, None], (3, count, 1)),
        lengths=lengths,
        new=np.ones(count, np.int64),
        features=None,
        sampler=sampler_inputs([_draw(running) for running in rows], session.candidates, session.vocabulary),
        parked=table.parked(count, session.rows - count),
    )


def _draw(running: Running) -> Draw:
    request, mask = running.request, running.mask
    return Draw(
        request.sampling,
        len(running.answer),
        running.seen,
        mask.result() if mask is not None and mask.done() and mask.exception() is None else None,
        request.wants_logprobs,
    )
