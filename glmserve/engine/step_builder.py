"""Builds the arrays of one step from the requests that take part in it."""

from __future__ import annotations

import numpy as np

from glmserve.engine.request import Prompt, Sequence
from glmserve.engine.runtime.constant_arrays import numbered, zeros
from glmserve.engine.runtime.decoder import DecoderSession, Step
from glmserve.engine.runtime.sampling import GREEDY, Draw, sampler_inputs
from glmserve.engine.scheduler.kv_slots import SlotTable
from glmserve.engine.scheduler.scheduler import Chunk
from glmserve.engine.speculative.proposer import Draft

_NONE = np.empty(0, np.int32)


def step_of(
    rows: list[Sequence],
    chunks: list[Chunk],
    table: SlotTable,
    session: DecoderSession,
    draft: Draft | None = None,
) -> Step:
    """The newest token of every decoded row, and beside them the chunks of prompts, or a draft for one of the rows.

    Rows of two sizes take part only where there is neither: those of the second size are to the graph what chunks are.
    """
    count, first = len(rows), rows[0].row if rows else 0
    lengths = np.array([sequence.length for sequence in rows], np.int32)
    at = lengths + np.array([sequence.request.prompt.delta for sequence in rows], np.int64)
    input_ids = [np.array([sequence.answer[-1] for sequence in rows], np.int64)]
    image_slot, features = [zeros(count)], None
    positions = [np.repeat(at[None, :], 3, axis=0)]
    drawn = [numbered(count)]
    draws = [_draw(sequence) for sequence in rows]
    chunk_lengths, chunk_new, parked_beside = _NONE, zeros(0), None
    if chunks:
        chunk_lengths = np.array([chunk.start for chunk in chunks], np.int32)
        chunk_new = np.array([chunk.tokens for chunk in chunks], np.int64)
        parts = [(chunk.sequence.prompt, slice(chunk.start, chunk.stop)) for chunk in chunks]
        places, features = images_in(parts)
        input_ids += [prompt.input_ids[part] for prompt, part in parts]
        image_slot += places
        positions += [prompt.positions[:, part] for prompt, part in parts]
        drawn.append(count - 1 + np.cumsum(chunk_new))
        draws += [_draw(chunk.sequence) if chunk.begins_answer else GREEDY for chunk in chunks]
    if draft is not None:
        sequence, offsets = draft.sequence, np.arange(1, 1 + len(draft.tokens))
        input_ids.append(np.array(draft.tokens, np.int64))
        image_slot.append(zeros(len(offsets)))
        positions.append(np.repeat(at[sequence.row - first] + offsets[None, :], 3, axis=0))
        drawn.append(count - 1 + offsets)
        draws += [Draw(sequence.request.sampling, len(sequence.answer) + int(offset)) for offset in offsets]
    end = first + table.rows_behind(first)
    beside = [sequence for sequence in rows if sequence.row >= end]
    if beside:
        assert not chunks and draft is None
        lengths, chunk_lengths = lengths[: -len(beside)], lengths[-len(beside) :]
        chunk_new = np.ones(len(beside), np.int64)
        parked_beside = table.parked(beside[-1].row + 1, table.rows_behind(beside[-1].row) - 1)
    read = beside or [chunk.sequence for chunk in chunks]
    return Step(
        input_ids=_joined(input_ids),
        image_slot=_joined(image_slot),
        positions=_joined(positions),
        features=features,
        lengths=lengths,
        first_decoded=first,
        first_row=read[0].row if read else 0,
        chunk_lengths=chunk_lengths,
        chunk_new=chunk_new,
        drawn=_joined(drawn),
        sampler=sampler_inputs(draws, session.candidates, session.vocabulary),
        parked=table.parked(first + len(lengths), end - first - len(lengths)),
        draft_row=draft.sequence.row - first if draft else None,
        parked_beside=parked_beside,
    )


def images_in(parts: list[tuple[Prompt, slice]]) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Where each part's tokens find their feature row, i64 [tokens] each, and the rows f32 [M, hidden], the first of
    which stands for text; None where no part holds an image token."""
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


def feature_rows(images: tuple[np.ndarray, ...] | list[np.ndarray], first: int, last: int) -> list[np.ndarray]:
    """Rows [first, last] of the features f32 [image tokens, hidden] of all images, counted from 1, as views."""
    rows, begin = [], 1
    for features in images:
        part = features[max(0, first - begin) : max(0, last + 1 - begin)]
        if len(part):
            rows.append(part)
        begin += len(features)
    return rows


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """One after another along the last axis, that of tokens."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def _draw(sequence: Sequence) -> Draw:
    request, future = sequence.request, sequence.mask
    if request.is_greedy:
        return GREEDY
    mask = future.result() if future is not None and future.done() and future.exception() is None else None
    edits = None
    if sequence.edits is not None:
        edits, mask = sequence.edits.after(sequence.answer, mask)
    return Draw(request.sampling, len(sequence.answer), edits, mask)
