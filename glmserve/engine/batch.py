"""Builds the arrays of one step from the requests that take part in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glmserve.engine.lookup import Draft
from glmserve.engine.request import Prompt, Running
from glmserve.engine.sampling import Draw, sampler_inputs
from glmserve.engine.scheduler import Chunk
from glmserve.engine.session import DecoderSession, Step
from glmserve.engine.slots import SlotTable


def step_of(
    rows: list[Running],
    chunks: list[Chunk],
    table: SlotTable,
    session: DecoderSession,
    draft: Draft | None = None,
) -> Step:
    """The newest token of every decoded row, and beside them the chunks of prompts, or a draft for one of the rows."""
    count = len(rows)
    lengths = np.array([running.length for running in rows], np.int32)
    at = lengths + np.array([running.request.prompt.delta for running in rows], np.int64)
    parts = [(chunk.running.request.prompt, slice(chunk.start, chunk.stop)) for chunk in chunks]
    chunk_new = np.array([chunk.tokens for chunk in chunks], np.int64)
    image_slot, features = pictures_in(parts)
    input_ids = [
        np.array([running.answer[-1] for running in rows], np.int64),
        *(p.input_ids[part] for p, part in parts),
    ]
    positions = [np.broadcast_to(at, (3, count)), *(prompt.positions[:, part] for prompt, part in parts)]
    drawn = [np.arange(count), count - 1 + np.cumsum(chunk_new)]
    draws = [_draw(running) for running in (*rows, *(chunk.running for chunk in chunks))]
    if draft is not None:
        running, guesses = draft.running, np.arange(1, 1 + len(draft.tokens))
        input_ids.append(np.array(draft.tokens, np.int64))
        image_slot.append(np.zeros(len(guesses), np.int64))
        positions.append(np.broadcast_to(at[running.row] + guesses, (3, len(guesses))))
        drawn.append(count - 1 + guesses)
        draws += [Draw(running.request.sampling, len(running.answer) + int(guess)) for guess in guesses]
    return Step(
        input_ids=np.concatenate(input_ids),
        image_slot=np.concatenate([np.zeros(count, np.int64), *image_slot]),
        positions=np.concatenate(positions, axis=1),
        features=features,
        lengths=lengths,
        first_row=chunks[0].running.row if chunks else 0,
        chunk_lengths=np.array([chunk.start for chunk in chunks], np.int32),
        chunk_new=chunk_new,
        drawn=np.concatenate(drawn),
        sampler=sampler_inputs(draws, session.candidates, session.vocabulary),
        parked=table.parked(count, session.rows - count),
        draft_row=draft.running.row if draft else None,
    )


def pictures_in(parts: list[tuple[Prompt, slice]]) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Where each part's tokens find their feature row, i64 [tokens] each, and the rows f32 [M, hidden], the first of
    which stands for text; None where no part shows a picture."""
    places, features, offset = [], list[np.ndarray](), 0
    for prompt, part in parts:
        slots = prompt.image_slot[part]
        if slots.any():
            first, last = int(slots[slots > 0].min()), int(slots.max())
            slots = np.where(slots > 0, slots - first + 1 + offset, 0)
            features += feature_rows(prompt.features, first, last)
            offset += last - first + 1
        places.append(slots)
    if not features:
        return places, None
    return places, np.concatenate([np.zeros((1, features[0].shape[1]), np.float32), *features])


def feature_rows(pictures: Sequence[np.ndarray], first: int, last: int) -> list[np.ndarray]:
    """Rows [first, last] of the features f32 [image tokens, hidden] of all pictures, counted from 1, as views."""
    rows, begin = [], 1
    for features in pictures:
        part = features[max(0, first - begin) : max(0, last + 1 - begin)]
        if len(part):
            rows.append(part)
        begin += len(features)
    return rows


def _draw(running: Running) -> Draw:
    request, mask = running.request, running.mask
    return Draw(
        request.sampling,
        len(running.answer),
        running.seen,
        mask.result() if mask is not None and mask.done() and mask.exception() is None else None,
        request.wants_logprobs,
    )
