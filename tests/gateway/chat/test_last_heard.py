"""What one worker hears of Triton excuses the canary of all workers."""

from __future__ import annotations

import os
import time
from pathlib import Path

from gateway.chat.last_heard import LastHeard

CLOCKS_DIFFER_S = 0.1


def test_a_worker_alone_knows_what_it_heard_itself() -> None:
    heard = LastHeard(None)
    assert heard.at_s == float("-inf")
    before = time.monotonic()
    heard.note()
    assert before <= heard.at_s <= time.monotonic()


def test_what_another_worker_heard_counts(tmp_path: Path) -> None:
    one, other = LastHeard(tmp_path), LastHeard(tmp_path)
    assert one.at_s == other.at_s == float("-inf")
    before = time.monotonic()
    other.note()
    assert before - CLOCKS_DIFFER_S <= one.at_s <= time.monotonic()


def test_an_old_part_is_no_new_one(tmp_path: Path) -> None:
    one, other = LastHeard(tmp_path), LastHeard(tmp_path)
    other.note()
    (file,) = tmp_path.iterdir()
    os.utime(file, (time.time() - 100, time.time() - 100))
    assert one.at_s < time.monotonic() - 90


def test_a_wall_clock_that_was_set_back_makes_nothing_lie_ahead(tmp_path: Path) -> None:
    one, other = LastHeard(tmp_path), LastHeard(tmp_path)
    other.note()
    (file,) = tmp_path.iterdir()
    os.utime(file, (time.time() + 3600, time.time() + 3600))
    assert one.at_s <= time.monotonic()


def test_a_folder_that_is_gone_costs_the_others_parts_only(tmp_path: Path) -> None:
    heard = LastHeard(tmp_path / "none")
    heard.note()
    assert heard.at_s > 0
