"""A call that falls silent is ended; one that speaks or has ended is left alone."""

from __future__ import annotations

import threading

from gateway.timeouts import Watchdog

WAIT_S = 10


def test_a_silent_call_is_cancelled_and_marked_dead() -> None:
    watchdog, cancelled = Watchdog(), threading.Event()
    with watchdog.watch(cancelled.set, 0.02) as pulse:
        assert cancelled.wait(WAIT_S)
        assert pulse.is_dead
    watchdog.close()


def test_a_call_watched_later_may_end_sooner() -> None:
    watchdog, slow, fast = Watchdog(), threading.Event(), threading.Event()
    with watchdog.watch(slow.set, WAIT_S), watchdog.watch(fast.set, 0.02):
        assert fast.wait(WAIT_S / 2)
        assert not slow.is_set()
    watchdog.close()


def test_a_beat_may_bring_the_end_nearer() -> None:
    watchdog, cancelled = Watchdog(), threading.Event()
    with watchdog.watch(cancelled.set, 10 * WAIT_S) as pulse:
        pulse.beat(0.02)
        assert cancelled.wait(WAIT_S)
    watchdog.close()


def test_a_call_that_has_ended_is_left_alone() -> None:
    watchdog, ended, other = Watchdog(), threading.Event(), threading.Event()
    with watchdog.watch(ended.set, 0.02):
        pass
    with watchdog.watch(other.set, 0.05):
        assert other.wait(WAIT_S)
    assert not ended.is_set()
    watchdog.close()
