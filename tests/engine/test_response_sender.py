"""Events leave in order from one thread, first tokens and endings at once, and what gathers goes together."""

from __future__ import annotations

import threading

from glmserve.contract import Finish
from glmserve.engine.request import Done, Event, Failed, Timings, Tokens
from glmserve.engine.triton.response_sender import ResponseSender
from glmserve.errors import Cancelled

WAIT_S = 5
DONE = Done(Finish.STOP, Timings())


class Mailbox:
    """What one answer's client received; the first send may be made to wait."""

    def __init__(self, gate: threading.Event | None = None) -> None:
        self._gate = gate
        self.sends: list[list[Event]] = []
        self.threads: set[int] = set()
        self.ended = threading.Event()
        self.began = threading.Event()

    def __call__(self, events: list[Event]) -> None:
        self.threads.add(threading.get_ident())
        self.sends.append(events)
        self.began.set()
        if self._gate:
            assert self._gate.wait(WAIT_S)
        if events[-1].is_last:
            self.ended.set()

    @property
    def tokens(self) -> list[int]:
        return [t for events in self.sends for event in events if isinstance(event, Tokens) for t in event.tokens]


def test_every_token_arrives_once_and_in_order_from_one_thread() -> None:
    response_sender, boxes = ResponseSender(), [Mailbox() for _ in range(10)]
    emits = [response_sender.channel(box) for box in boxes]
    for number in range(300):
        for emit in emits:
            emit(Tokens([number]))
    for emit in emits:
        emit(DONE)
    assert all(box.ended.wait(WAIT_S) for box in boxes)
    assert all(box.tokens == list(range(300)) for box in boxes)
    assert len(set.union(*(box.threads for box in boxes))) == 1
    response_sender.close()


def test_tokens_that_gather_behind_a_slow_send_leave_together() -> None:
    response_sender, gate = ResponseSender(), threading.Event()
    slow = Mailbox(gate)
    emit = response_sender.channel(slow)
    emit(Tokens([0]))
    assert slow.began.wait(WAIT_S)
    for number in range(1, 50):
        emit(Tokens([number]))
    emit(DONE)
    gate.set()
    assert slow.ended.wait(WAIT_S)
    assert slow.tokens == list(range(50)) and len(slow.sends) == 2
    assert isinstance(slow.sends[-1][-1], Done)
    response_sender.close()


def test_a_receiver_that_fails_does_not_stop_the_others() -> None:
    response_sender, fine = ResponseSender(), Mailbox()

    def broken(events: list[Event]) -> None:
        raise OSError("gone")

    response_sender.channel(broken)(Tokens([1]))
    emit = response_sender.channel(fine)
    emit(Tokens([1]))
    emit(DONE)
    assert fine.ended.wait(WAIT_S)
    response_sender.close()


def test_closing_sends_what_was_posted() -> None:
    response_sender, box = ResponseSender(), Mailbox()
    emit = response_sender.channel(box)
    for number in range(20):
        emit(Tokens([number]))
    emit(DONE)
    response_sender.close()
    assert box.tokens == list(range(20)) and box.ended.is_set()


def test_an_answer_asked_for_as_a_whole_leaves_at_its_end_in_one_piece() -> None:
    response_sender, box = ResponseSender(), Mailbox()
    emit = response_sender.channel(box, is_whole=True)
    for number in range(5):
        emit(Tokens([number]))
    assert not box.began.wait(0.1)
    emit(DONE)
    assert box.ended.wait(WAIT_S)
    assert box.sends == [[Tokens([0, 1, 2, 3, 4]), DONE]]
    response_sender.close()


def test_a_whole_answer_that_fails_is_its_error_alone() -> None:
    """Where one model asks another, Triton loses an error that follows a response, and who asked waits for ever."""
    response_sender, box, failed = ResponseSender(), Mailbox(), Failed(Cancelled())
    emit = response_sender.channel(box, is_whole=True)
    emit(Tokens([0, 1]))
    emit(failed)
    assert box.ended.wait(WAIT_S)
    assert box.sends == [[failed]]
    response_sender.close()


def test_whoever_asked_is_told_of_an_answers_end_once() -> None:
    response_sender, box, ends = ResponseSender(), Mailbox(), []
    emit = response_sender.channel(box, when_ended=lambda: ends.append(len(ends)))
    emit(Tokens([0]))
    assert ends == []
    emit(DONE)
    assert ends == [0]
    response_sender.close()
