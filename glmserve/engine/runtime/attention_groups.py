"""Takes a step's tokens apart for the graph: decoded rows, chunks of prompts, and a draft beside them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from glmserve.engine.runtime.constant_arrays import closed, numbered, zeros
from glmserve.engine.runtime.decoder import Step
from glmserve.engine.runtime.sampling import padded


@dataclass(frozen=True)
class Group:
    """A `contract.RowGroup`'s values: `index` i64 [rows, width], `seqlens` i32 [rows]."""

    index: np.ndarray
    seqlens: np.ndarray
    total: int


_STRAY = Group(zeros(1)[:, None], closed(np.zeros(1, np.int32)), 1)


def groups(step: Step) -> tuple[Group, Group, np.ndarray]:
    """Decoded rows, chunks (a stray row where there are none), and the place i64 [T] of each token among both."""
    if step.draft_row is not None:
        return _with_draft(step, step.draft_row)
    count, new = step.decoded, step.chunk_new
    decoded, chunk, places = _STRAY, _STRAY, [numbered(count)]
    if count:
        decoded = _rows(step)
    if len(new):
        width = int(new.max())
        starts = count + np.cumsum(new) - new
        inside = np.arange(width)[None, :]
        index = np.where(inside < new[:, None], starts[:, None] + inside, 0)
        after = step.chunk_lengths + new
        chunk = Group(index, (after - 1).astype(np.int32), int(after.max()))
        before = len(decoded.index)
        places += [before + row * width + np.arange(length) for row, length in enumerate(new)]
    return decoded, chunk, np.concatenate(places) if len(new) else places[0]


def _with_draft(step: Step, row: int) -> tuple[Group, Group, np.ndarray]:
    """As `groups`, the chunk being a row's newest token and its draft. That token is in both groups, which write the
    same KV for it; a row that is alone needs the chunk only."""
    count, draft_tokens = step.decoded, step.draft_tokens
    index = np.concatenate([[row], np.arange(count, count + draft_tokens)])
    last = int(step.lengths[row]) + draft_tokens
    chunk = Group(index[None, :], np.array([last], np.int32), last + 1)
    if count == 1:
        return _STRAY, chunk, np.arange(1, 2 + draft_tokens)
    return _rows(step), chunk, np.concatenate([np.arange(count), count + np.arange(1, 1 + draft_tokens)])


def _rows(step: Step) -> Group:
    return Group(numbered(step.decoded)[:, None], step.lengths, int(step.lengths.max()) + 1)


def padded_step(step: Step, rows: int, room: int, rows_beside: int = 0, room_beside: int = 0) -> Step:
    """A decode step of `rows` rows with room for `room` tokens each, and as many of another size: those that are added
    write one stray token behind what they hold. What is drawn after them comes after all else."""
    count, beside = step.decoded, step.beside
    more, more_beside = rows - count, rows_beside - beside
    if not more and not more_beside:
        return step
    used = np.concatenate([numbered(count), rows + np.arange(beside)])
    strays = np.concatenate([np.arange(count, rows), rows + np.arange(beside, rows_beside)])
    input_ids, positions = np.zeros(rows + rows_beside, np.int64), np.zeros((3, rows + rows_beside), np.int64)
    input_ids[used], positions[:, used] = step.input_ids, step.positions
    parked_beside = step.parked if step.parked_beside is None else step.parked_beside
    return replace(
        step,
        drawn=np.concatenate([used, strays]),
        input_ids=input_ids,
        image_slot=zeros(rows + rows_beside),
        positions=positions,
        lengths=_parked(step.lengths, step.parked, more, room),
        chunk_lengths=_parked(step.chunk_lengths, parked_beside, more_beside, room_beside),
        chunk_new=np.ones(rows_beside, np.int64),
        sampler=padded(step.sampler, more + more_beside),
    )


def _parked(lengths: np.ndarray, parked: np.ndarray, more: int, room: int) -> np.ndarray:
    """The lengths i32 of rows and of those that are added, in which the last place is where a stray goes at most."""
    return np.concatenate([lengths, np.minimum(parked[:more], room - 1)], dtype=np.int32, casting="same_kind")
