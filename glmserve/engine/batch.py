"""Builds the arrays of one step from the requests that take part in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from glmserve.engine.request import Prompt, Running
from glmserve.engine.sampling import Draw, sampler_inputs
from glmserve.engine.scheduler import Chunk
from glmserve.engine.session import DecoderSession, Step
from glmserve.engine.slots import SlotTable


def step_of(rows: list[Running], chunks: list[Chunk], table: SlotTable, session: DecoderSession) -> Step:
    """The newest token of every decoded row, and beside them the chunks of prompts."""
    count = len(rows)
    lengths = np.array([running.length for running in rows], np.int32)
    at = lengths + np.array([running.request.prompt.delta for running in rows], np.int64)
    parts = [(chunk.running.request.prompt, slice(chunk.start, chunk.stop)) for chunk in chunks]
    chunk_new = np.array([chunk.tokens for chunk in chunks], np.int64)
    image_slot, features = _pictures(parts)
    return Step(
        input_ids=np.concatenate(
            [np.array([running.answer[-1] for running in rows], np.int64), *(p.input_ids[part] for p, part in parts)]
        ),
        image_slot=np.concatenate([np.zeros(count, np.int64), *image_slot]),
        positions=np.concatenate(
            [np.broadcast_to(at, (3, count)), *(prompt.positions[:, part] for prompt, part in parts)], axis=1
        ),
        features=features,
        lengths=lengths,
        first_row=chunks[0].running.row if chunks else 0,
        chunk_lengths=np.array([chunk.start for chunk in chunks], np.int32),
        chunk_new=chunk_new,
        drawn=np.concatenate([np.arange(count), count - 1 + np.cumsum(chunk_new)]),
        sampler=sampler_inputs(
            [_draw(running) for running in (*rows, *(chunk.running for chunk in chunks))],
            session.candidates,
            session.vocabulary,
        ),
        parked=table.parked(count, session.rows - count),
    )


def draft_step(running: Running, draft: list[int], session: DecoderSession) -> Step:
    """The newest token of the only decoded row and those that a draft says will follow, a token drawn after each."""
    request, tokens = running.request, 1 + len(draft)
    positions = np.arange(running.length, running.length + tokens) + request.prompt.delta
    draws = [Draw(request.sampling, len(running.answer) + index) for index in range(tokens)]
    step = Step.drawing(
        np.array([running.answer[-1], *draft], np.int64),
        np.broadcast_to(positions, (3, tokens)),
        np.arange(tokens),
        sampler_inputs(draws, session.candidates, session.vocabulary),
    )
    return replace(
        step,
        first_row=running.row,
        chunk_lengths=np.array([running.length], np.int32),
        chunk_new=np.array([tokens], np.int64),
    )


def _pictures(parts: list[tuple[Prompt, slice]]) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Where each part's tokens find their feature row, i64 [tokens] each, and the rows f32 [M, hidden], the first of
    which stands for text; None where no part shows a picture."""
    places, features, offset = [], list[np.ndarray](), 0
    for prompt, part in parts:
        slots = prompt.image_slot[part]
        if slots.any():
            first, last = int(slots[slots > 0].min()), int(slots.max())
            slots = np.where(slots > 0, slots - first + 1 + offset, 0)
            features.append(prompt.features[first : last + 1])
            offset += last - first + 1
        places.append(slots)
    if not features:
        return places, None
    return places, np.concatenate([np.zeros((1, features[0].shape[1]), np.float32), *features])


def _draw(running: Running) -> Draw:
    request, mask = running.request, running.mask
    return Draw(
        request.sampling,
        len(running.answer),
        running.seen,
        mask.result() if mask is not None and mask.done() and mask.exception() is None else None,
        request.wants_logprobs,
    )
