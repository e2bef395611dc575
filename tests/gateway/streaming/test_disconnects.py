"""A client who leaves is noticed at once; one who stays is left alone."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator

import pytest
from eventually import eventually

from gateway.streaming.disconnects import DisconnectWatcher

WAIT_S = 10


@pytest.fixture
def watch() -> Generator[DisconnectWatcher]:
    watch = DisconnectWatcher()
    yield watch
    watch.close()


def test_a_client_who_leaves_is_noticed(watch: DisconnectWatcher) -> None:
    ours, theirs = socket.socketpair()
    gone = threading.Event()
    with ours, watch.watch(ours, gone.set):
        theirs.close()
        assert gone.wait(WAIT_S)


def test_a_client_who_sends_more_is_still_there(watch: DisconnectWatcher) -> None:
    ours, theirs = socket.socketpair()
    other, leaver = socket.socketpair()
    stayed, left = threading.Event(), threading.Event()
    with ours, theirs, other, watch.watch(ours, stayed.set), watch.watch(other, left.set):
        theirs.sendall(b"GET /")
        leaver.close()
        assert left.wait(WAIT_S)
        assert not stayed.is_set()


def test_a_client_whose_answer_is_complete_is_not_watched_any_more(watch: DisconnectWatcher) -> None:
    ours, theirs = socket.socketpair()
    other, leaver = socket.socketpair()
    first, second = threading.Event(), threading.Event()
    with ours, other:
        with watch.watch(ours, first.set):
            pass
        with watch.watch(other, second.set):
            theirs.close()
            leaver.close()
            assert second.wait(WAIT_S)
    assert not first.is_set()


def test_who_comes_after_a_client_that_left_is_not_taken_for_it(watch: DisconnectWatcher) -> None:
    """The kernel told that a client left; before anybody looked, its descriptor had become another one's."""
    ours, theirs = socket.socketpair()
    left = threading.Event()
    with ours, theirs, watch.watch(ours, left.set):
        watch._check(ours.fileno())
        assert not left.is_set()
        theirs.close()
        assert left.wait(WAIT_S)


def test_a_client_that_left_is_told_once(watch: DisconnectWatcher) -> None:
    ours, theirs = socket.socketpair()
    told: list[None] = []
    with ours, watch.watch(ours, lambda: told.append(None)):
        theirs.close()
        assert eventually(lambda: bool(told))
        watch._check(ours.fileno())
        ours.close()
        watch._check(ours.fileno())
    assert told == [None]


def test_without_a_socket_there_is_nothing_to_watch(watch: DisconnectWatcher) -> None:
    with watch.watch(None, lambda: None):
        assert "clients" not in [thread.name for thread in threading.enumerate()]
