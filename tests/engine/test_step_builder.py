"""Features reach the decoder without being copied on their way: views of those that a chunk's tokens show."""

from __future__ import annotations

import numpy as np
import pytest
from engine_rig import prompt
from fake_decoder import FakeSession

from glmserve.engine.request import Prompt, Request, Sequence
from glmserve.engine.scheduler.kv_slots import SlotTable
from glmserve.engine.scheduler.scheduler import Chunk
from glmserve.engine.step_builder import feature_rows, step_of
from glmserve.engine.triton.tensors import kept
from glmserve.sampling_parameters import Sampling

IMAGES = [np.arange(12, dtype=np.float32).reshape(4, 3), np.arange(12, 27, dtype=np.float32).reshape(5, 3)]


@pytest.mark.parametrize(("first", "last"), [(1, 9), (1, 4), (5, 9), (2, 3), (4, 5), (9, 9), (3, 8)])
def test_rows_are_counted_through_all_images_and_are_views(first: int, last: int) -> None:
    rows = feature_rows(IMAGES, first, last)
    assert np.array_equal(np.concatenate(rows), np.concatenate(IMAGES)[first - 1 : last])
    assert all(any(np.shares_memory(part, image) for image in IMAGES) for part in rows)


@pytest.mark.parametrize("chunk", [3, 5, 13])
def test_every_image_token_finds_its_own_row_in_its_chunk(chunk: int) -> None:
    slots = np.array([0, 1, 2, 3, 4, 0, 0, 5, 6, 7, 8, 9, 0])
    text = prompt([1] * len(slots))
    shown = Prompt(text.input_ids, text.positions, 0, IMAGES, slots, text.keys)
    running = Sequence(Request(shown, Sampling(max_tokens=1), 1e9, lambda event: None), 0.0, row=0)
    everything = np.concatenate(IMAGES)
    for start in range(0, len(slots), chunk):
        part = Chunk(running, start, min(start + chunk, len(slots)))
        step = step_of([], [part], SlotTable(1, 1), FakeSession())
        wanted = slots[part.start : part.stop]
        assert (step.image_slot > 0).tolist() == (wanted > 0).tolist()
        if (wanted > 0).any():
            assert step.features is not None
            assert np.array_equal(step.features[step.image_slot[wanted > 0]], everything[wanted[wanted > 0] - 1])


def test_an_array_is_copied_only_where_its_memory_is_somebody_elses() -> None:
    own = np.arange(6)
    view = own.reshape(2, 3)[0]
    lent = np.frombuffer(bytearray(own.tobytes()), own.dtype)
    assert kept(own) is own and kept(view) is view
    copy = kept(lent)
    assert not np.shares_memory(copy, lent) and np.array_equal(copy, lent)
