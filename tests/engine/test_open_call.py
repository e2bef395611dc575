"""Triton dies of a question about a call whose last response is being sent, so the two never meet."""

from __future__ import annotations

import threading
from contextlib import suppress

from glmserve.contract import Finish
from glmserve.engine.request import Done, Event, Timings, Tokens
from glmserve.engine.triton.open_call import OpenCall

TOKEN, LAST = Tokens((1,)), Done(Finish.STOP, Timings())
WAIT_S = 10.0


class TritonCall:
    """Frees its state with the last response, as Triton does; a question may be held up while it is on its way."""

    def __init__(self) -> None:
        self.is_freed, self.asked_when_freed = False, False
        self.sent: list[Event] = []
        self.is_asked, self.may_answer = threading.Event(), threading.Event()
        self.may_answer.set()

    def send(self, events: list[Event]) -> None:
        self.sent += events
        self.is_freed = events[-1].is_last

    def is_cancelled(self) -> bool:
        self.is_asked.set()
        assert self.may_answer.wait(WAIT_S)
        self.asked_when_freed |= self.is_freed
        return False


def test_the_last_response_waits_for_a_question_under_way_and_others_do_not() -> None:
    triton = TritonCall()
    call = OpenCall(triton.send, triton.is_cancelled)
    triton.may_answer.clear()
    asking = threading.Thread(target=call.is_cancelled)
    asking.start()
    assert triton.is_asked.wait(WAIT_S)

    call.send([TOKEN])  # would hang here
    assert triton.sent == [TOKEN]
    ending = threading.Thread(target=call.send, args=([LAST],))
    ending.start()
    ending.join(0.1)
    assert not triton.is_freed

    triton.may_answer.set()
    for thread in (asking, ending):
        thread.join(WAIT_S)
    assert triton.sent == [TOKEN, LAST] and not triton.asked_when_freed


def test_a_call_that_has_ended_is_never_asked() -> None:
    triton = TritonCall()
    call = OpenCall(triton.send, triton.is_cancelled)
    assert not call.is_cancelled()
    call.send([TOKEN, LAST])
    triton.is_asked.clear()
    assert call.is_cancelled() and not triton.is_asked.is_set()


def test_a_last_response_that_cannot_be_sent_ends_it_all_the_same() -> None:
    def fails(events: list[Event]) -> None:
        raise RuntimeError("the stub is going down")

    triton = TritonCall()
    call = OpenCall(fails, triton.is_cancelled)
    with suppress(RuntimeError):
        call.send([LAST])
    assert call.is_cancelled() and not triton.is_asked.is_set()
