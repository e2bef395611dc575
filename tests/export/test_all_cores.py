"""Rounding uses every core, and gives the same bytes on any number of them."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from export.quantize import all_cores, blockwise, per_channel_int8
from export.quantize.all_cores import on_all_cores

WEIGHT = np.random.default_rng(3).standard_normal((700, 1100)).astype(np.float32)


def _rounded() -> list[np.ndarray]:
    found = []
    for bits in (4, 8):
        scales = blockwise.find_scales(WEIGHT, bits)
        found += [scales, blockwise.round_to_codes(WEIGHT, scales, bits)]
    scales = per_channel_int8.output_scales(WEIGHT)
    return [*found, scales, per_channel_int8.byte_codes(WEIGHT, scales)]


def test_any_number_of_cores_rounds_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    rounded = []
    for count in (1, 2, 5):
        monkeypatch.setattr(all_cores, "cores", lambda count=count: count)
        rounded.append(_rounded())
    for other in rounded[1:]:
        for one, another in zip(rounded[0], other, strict=True):
            np.testing.assert_array_equal(one, another)


def test_the_rows_are_worked_on_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_cores, "cores", lambda: 3)
    together, done = threading.Barrier(3, timeout=10), np.zeros(10, np.int64)

    def work(rows: slice) -> None:
        if rows.start < 9:
            together.wait()
        done[rows] += 1

    on_all_cores(work, 10, 1)
    assert (done == 1).all()


def test_an_error_in_one_part_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_cores, "cores", lambda: 2)

    def work(rows: slice) -> None:
        if rows.start == 4:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        on_all_cores(work, 8, 2)
