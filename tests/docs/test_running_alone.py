"""Tests that measure run alone, and several of them in a row make the other processes of a run wait once."""

from __future__ import annotations

import threading
from pathlib import Path

from eventually import eventually
from turns import Turns


def test_nobody_runs_beside_whoever_is_alone_not_even_between_two_such_tests(tmp_path: Path) -> None:
    measuring, other, events = Turns(tmp_path), Turns(tmp_path), list[str]()

    def run() -> None:
        with other.turn(is_alone=False):
            events.append("other")

    with measuring.turn(is_alone=True, keeps=True):
        thread = threading.Thread(target=run)
        thread.start()
        assert not eventually(lambda: bool(events), within_s=0.1)
    assert not eventually(lambda: bool(events), within_s=0.1)
    with measuring.turn(is_alone=True):
        events.append("alone")
    thread.join(10)
    assert events == ["alone", "other"]


def test_whoever_is_not_alone_runs_beside_others(tmp_path: Path) -> None:
    with Turns(tmp_path).turn(is_alone=False), Turns(tmp_path).turn(is_alone=False):
        pass


def test_a_turn_that_was_kept_for_a_test_that_is_not_alone_is_given_back(tmp_path: Path) -> None:
    turns = Turns(tmp_path)
    with turns.turn(is_alone=True, keeps=True):
        pass
    with turns.turn(is_alone=False):
        pass
    with Turns(tmp_path).turn(is_alone=True):
        pass
