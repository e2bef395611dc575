"""What happens to a request before the engine has it: pictures for nobody are not read, and every ending is counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from engine_rig import Receiver
from preparing import WAIT_S, Rig, tensors_of

from glmserve.contract import Finish
from glmserve.engine.grammars.trial import GrammarTrial, Verdict
from glmserve.engine.metrics import FAILED, REFUSED
from glmserve.engine.request import Failed
from glmserve.engine.scheduler.wait_queue import WaitQueue
from glmserve.engine.triton.cancellations import Cancellations

pytestmark = pytest.mark.process  # grammars are tried in a process of their own


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.encoder.gate.set()
    made.close()
    assert made.engine.wait_queue.requests == 0


def _leave(rig: Rig, receiver: Receiver) -> str:
    receiver.cancelled.set()
    rig.encoder.gate.set()
    return receiver.code


def _run_out_of_time(rig: Rig, receiver: Receiver) -> str:
    time.sleep(0.3)
    rig.encoder.gate.set()
    return receiver.code


def _close(rig: Rig, receiver: Receiver) -> str:
    closing = threading.Thread(target=rig.preprocessor.close)
    closing.start()
    while not rig.preprocessor._closing.is_set():
        time.sleep(0.001)
    rig.encoder.gate.set()
    closing.join(WAIT_S)
    return receiver.code


@pytest.mark.parametrize(
    ("end", "code"), [(_leave, "cancelled"), (_run_out_of_time, "deadline_exceeded"), (_close, "backend_down")]
)
def test_the_further_images_of_a_request_that_has_ended_are_not_read(
    rig: Rig, end: Callable[[Rig, Receiver], str], code: str
) -> None:
    rig.encoder.gate.clear()
    receiver = rig.ask(images=8, deadline_s=0.3 if end is _run_out_of_time else WAIT_S)
    assert rig.encoder.has_begun.wait(WAIT_S)
    assert end(rig, receiver) == code and rig.encoder.calls == 1
    assert rig.engine.meter.totals[FAILED] == 1


def test_requests_that_never_reach_the_engine_are_counted_as_failed(rig: Rig) -> None:
    rig.encoder.fails = True
    assert rig.ask(images=1).code == "internal"
    assert rig.ask(schema={"type": 7}).code == "invalid_input"
    rig.preprocessor.close()
    assert rig.ask().code == "backend_down"
    assert rig.engine.meter.totals[FAILED] == 3 and rig.engine.meter.totals[REFUSED] == 0


def test_a_schema_that_cannot_be_begun_never_reaches_the_engine(rig: Rig) -> None:
    receiver = rig.ask(schema={"$ref": "#"})
    assert receiver.code == "invalid_input" and len(receiver.events) == 1
    assert rig.engine.wait_queue.requests == 0


def test_schemas_that_are_being_compiled_hold_up_nobody_elses_text(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever number of keys sends them, and however few threads prepare requests."""
    gate = threading.Event()
    monkeypatch.setattr(GrammarTrial, "verdict", lambda _trial, _text: (gate.wait(WAIT_S), Verdict.FITS)[1])
    bound = [rig.ask(schema={"type": "integer", "title": str(i)}, scope=i) for i in range(4)]
    free = rig.ask(scope=9)
    assert free.got_token.wait(WAIT_S) and not any(receiver.events for receiver in bound)
    gate.set()
    assert all(receiver.got_token.wait(WAIT_S) for receiver in bound)


def test_several_answers_of_a_known_schema_wait_for_no_compilation_of_others(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are begun on the thread that prepares everybody's text."""
    assert rig.ask(schema={"type": "integer"}).got_token.wait(WAIT_S)
    gate, tried = threading.Event(), threading.Event()
    monkeypatch.setattr(
        GrammarTrial, "verdict", lambda _trial, _text: (tried.set(), gate.wait(WAIT_S), Verdict.FITS)[2]
    )
    others = rig.ask(schema={"type": "string"}, scope=1)
    assert tried.wait(WAIT_S)
    two = rig.ask(schema={"type": "integer"}, answers=2)
    assert two.got_token.wait(WAIT_S / 2) and rig.ask(scope=9).got_token.wait(WAIT_S / 2) and not others.events
    gate.set()
    assert others.got_token.wait(WAIT_S)


def test_one_keys_many_schemas_wait_behind_another_keys_first(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bytes] = []
    gate = threading.Event()

    def verdict(_trial: GrammarTrial, text: bytes) -> Verdict:
        tried.append(text)
        assert gate.wait(WAIT_S)
        return Verdict.FITS

    monkeypatch.setattr(GrammarTrial, "verdict", verdict)
    many = [rig.ask(schema={"type": "integer", "title": f"many{i}"}, scope=1) for i in range(3)]
    while not tried:
        time.sleep(0.001)
    one = rig.ask(schema={"type": "integer", "title": "other"}, scope=2)
    while not rig.preprocessor._compiling._waiting.get(2):
        time.sleep(0.001)
    gate.set()
    for receiver in (*many, one):
        receiver.wait()
    order = [next(name for name in ("many", "other") if name.encode() in text) for text in tried]
    assert order.index("other") <= 2, order


def test_a_schema_whose_request_is_over_is_not_compiled(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, tried = threading.Event(), list[str]()
    monkeypatch.setattr(
        GrammarTrial, "verdict", lambda _trial, text: (tried.append(text), gate.wait(WAIT_S), Verdict.FITS)[2]
    )
    first = rig.ask(schema={"type": "integer"})
    while not tried:
        time.sleep(0.001)
    second = rig.ask(schema={"type": "string"})
    second.cancelled.set()
    gate.set()
    assert second.code == "cancelled" and first.wait() and len(tried) == 1


def test_who_leaves_while_others_are_prepared_gives_the_place_back_at_once(rig: Rig) -> None:
    """The only reader is busy, so nobody looks at those behind it."""
    rig.encoder.gate.clear()
    first = rig.ask(images=1)
    assert rig.encoder.has_begun.wait(WAIT_S)
    for _ in range(3):
        cancellations, gone = Cancellations(), []
        for key in range(60):
            gone.append(Receiver())
            rig.preprocessor.accept(
                tensors_of(1, WAIT_S),
                gone[-1],
                lambda key=key, known=cancellations: known.is_cancelled(key),  # type: ignore[misc]
                lambda leave, key=key, known=cancellations: known.add_callback(key, leave),  # type: ignore[misc]
            )
        assert rig.engine.wait_queue.requests >= 60
        for key in range(60):
            cancellations.cancel(key)
        assert rig.engine.wait_queue.requests <= 1
        rig.engine.enter(1).leave()
    rig.encoder.gate.set()
    assert all(receiver.code == "cancelled" for receiver in gone)
    assert first.wait().is_last


def test_who_asks_for_a_place_hears_at_once_and_takes_none(rig: Rig) -> None:
    """Also while others wait."""
    rig.encoder.gate.clear()
    rig.ask(images=1)
    for _ in range(3):
        assert rig.ask_for_places().finish == Finish.STOP
    assert rig.engine.wait_queue.requests == 1 and rig.engine.meter.totals[REFUSED] == 0


def test_a_place_is_refused_as_a_request_would_be_and_counted_once(rig: Rig) -> None:
    rig.engine.wait_queue = WaitQueue(2, 1 << 40, slots=2)
    rig.encoder.gate.clear()
    waiting = [rig.ask(images=1, seed=seed) for seed in range(4)]
    asked, refused = rig.ask_for_places().wait(), rig.ask(images=1, seed=4).wait()
    assert isinstance(asked, Failed) and isinstance(refused, Failed)
    assert (asked.error.code, asked.error.message) == (refused.error.code, refused.error.message)
    assert rig.engine.meter.totals[REFUSED] == 2 and rig.engine.meter.totals[FAILED] == 0
    rig.encoder.gate.set()
    for receiver in waiting:
        receiver.wait()
    assert rig.ask_for_places(2).finish == rig.ask_for_places(4).finish == Finish.STOP
    assert rig.ask_for_places(5).code == rig.ask_for_places(512).code == "invalid_input"
    assert rig.ask_for_places(1000).code == rig.ask_for_places(0).code == "invalid_input"
    assert rig.engine.wait_queue.requests == 0


def test_a_crowd_finds_every_thread_running(rig: Rig) -> None:
    """A thread that a later crowd starts looks like a leak to whoever counts them."""

    def running() -> list[str]:
        return sorted(thread.name for thread in threading.enumerate())

    before = running()
    receivers = [rig.ask(images=seed % 2, seed=seed, scope=seed) for seed in range(24)]
    receivers += [rig.ask(schema={"type": "integer"}, scope=scope) for scope in range(2)]
    for receiver in receivers:
        receiver.wait()
    assert running() == before
