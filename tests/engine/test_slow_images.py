"""A slow image encoder holds up nobody but who waits for it, and that only until they leave or are out of time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from engine_rig import GatedSession, Receiver
from eventually import eventually
from preparing import CHECKPOINT, WAIT_S, Rig, tensors_of

from glmserve.engine.metrics import FAILED, WAITING
from glmserve.engine.triton.cancellations import Cancellations
from glmserve.engine.vision.sessions import in_batches
from glmserve.engine.vision.stop import Stop

LEAVES_WITHIN_S = 0.5
pytestmark = pytest.mark.process  # a grammar is tried in a process of its own
SLACK_S = 1.5
"""For a busy machine that runs the tests."""


class SlowVision:
    """An encoder that takes as long as it is told, unless it is stopped."""

    def __init__(self, takes_s: float = WAIT_S) -> None:
        self.takes_s = takes_s
        self.begun = threading.Semaphore(0)
        self.runs = self.ended = 0

    def run(
        self, patches: np.ndarray, row_weights: np.ndarray, column_weights: np.ndarray, stop: Stop | None = None
    ) -> np.ndarray:
        self.runs += 1
        self.begun.release()
        assert stop is not None
        is_stopped = threading.Event()
        stop.when_set(is_stopped.set)
        if is_stopped.wait(self.takes_s):
            self.ended += 1
            raise RuntimeError("terminated")
        return np.zeros((len(patches), patches.shape[1] // 4, CHECKPOINT.text.hidden), np.float32)


@pytest.fixture
def vision() -> SlowVision:
    return SlowVision()


@pytest.fixture
def session() -> GatedSession:
    return GatedSession(rows=1, context=512, vocabulary=CHECKPOINT.text.vocabulary)


@pytest.fixture
def rig(vision: SlowVision, session: GatedSession) -> Iterator[Rig]:
    made = Rig(in_batches(vision), session)
    yield made
    session.gate.set()
    made.close()
    assert made.engine.wait_queue.requests == 0


def waiting_shown(rig: Rig) -> float:
    return rig.engine.meter.totals[WAITING]


def test_text_does_not_wait_for_images_however_many_are_encoded(rig: Rig, vision: SlowVision) -> None:
    photos = [rig.ask(images=1, seed=seed) for seed in range(12)]
    assert vision.begun.acquire(timeout=WAIT_S)
    began = time.monotonic()
    assert rig.ask().got_token.wait(WAIT_S) and time.monotonic() - began < LEAVES_WITHIN_S + SLACK_S
    assert rig.ask(schema={"type": "integer"}).got_token.wait(WAIT_S)
    assert not any(photo.events for photo in photos) and vision.runs == 1


def test_an_image_that_was_seen_before_does_not_wait_for_others(rig: Rig, vision: SlowVision) -> None:
    vision.takes_s = 0.0
    assert rig.ask(images=1, seed=99).got_token.wait(WAIT_S)
    vision.takes_s = WAIT_S
    photo = rig.ask(images=1)
    assert rig.ask(images=1, seed=99).got_token.wait(LEAVES_WITHIN_S + SLACK_S) and not photo.events


def test_who_runs_out_of_time_leaves_then_and_his_image_holds_up_nobody(rig: Rig, vision: SlowVision) -> None:
    """The one that is encoded, those behind it, and their places."""
    began = time.monotonic()
    late = [rig.ask(images=1, seed=seed, deadline_s=0.3) for seed in range(4)]
    assert vision.begun.acquire(timeout=WAIT_S)
    patient = rig.ask(images=1, seed=50)
    assert [receiver.code for receiver in late] == ["deadline_exceeded"] * 4
    assert time.monotonic() - began < 0.3 + LEAVES_WITHIN_S + SLACK_S
    assert vision.begun.acquire(timeout=LEAVES_WITHIN_S + SLACK_S) and vision.runs == 2 and vision.ended == 1
    assert not patient.events and eventually(lambda: waiting_shown(rig) == 1)
    assert rig.engine.meter.totals[FAILED] == 4


@pytest.mark.parametrize("by_key", [True, False])
def test_who_is_cancelled_leaves_at_once_and_ends_the_encoding(rig: Rig, vision: SlowVision, by_key: bool) -> None:
    """Cancelled by a second request, or because its call has ended, which nobody tells us."""
    cancellations, receiver = Cancellations(), Receiver()
    rig.preprocessor.accept(
        tensors_of(1, WAIT_S),
        receiver,
        (lambda: cancellations.is_cancelled(7)) if by_key else receiver.cancelled.is_set,
        lambda leave: cancellations.add_callback(7, leave),
    )
    assert vision.begun.acquire(timeout=WAIT_S)
    began = time.monotonic()
    if by_key:
        cancellations.cancel(7)
    else:
        receiver.cancelled.set()
    assert receiver.code == "cancelled" and time.monotonic() - began < LEAVES_WITHIN_S + SLACK_S
    assert eventually(lambda: vision.ended == 1 and waiting_shown(rig) == 0)
    assert len(receiver.events) == 1


def test_an_image_that_another_still_wants_is_encoded_to_its_end(rig: Rig, vision: SlowVision) -> None:
    vision.takes_s = 1.0
    late, patient = rig.ask(images=1, deadline_s=0.2), rig.ask(images=1)
    assert late.code == "deadline_exceeded"
    assert patient.got_token.wait(WAIT_S) and vision.runs == 1 and vision.ended == 0


def test_a_long_deadline_is_waited_for_however_slow_the_encoder_is(rig: Rig, vision: SlowVision) -> None:
    """No other number of seconds than the request's own decides: the encoder needs longer than any of ours."""
    vision.takes_s = 2.0
    assert rig.ask(images=2, deadline_s=60).got_token.wait(WAIT_S)


@pytest.mark.parametrize("ends", ["late", "cancelled"])
def test_who_waits_for_a_slot_leaves_in_time_while_a_step_takes_long(
    rig: Rig, session: GatedSession, ends: str
) -> None:
    """The engine's thread is in that step, and sees nobody."""
    session.gate.clear()
    running = rig.ask()
    assert eventually(lambda: rig.engine._table.used == 1)
    waiting = [rig.ask(deadline_s=0.3 if ends == "late" else WAIT_S) for _ in range(3)]
    began = time.monotonic()
    if ends == "cancelled":
        for receiver in waiting:
            receiver.cancelled.set()
    codes = [receiver.code for receiver in waiting]
    assert time.monotonic() - began < 0.3 + LEAVES_WITHIN_S + SLACK_S and not session.gate.is_set()
    assert codes == ["deadline_exceeded" if ends == "late" else "cancelled"] * 3
    assert eventually(lambda: waiting_shown(rig) == 0)
    session.gate.set()
    assert running.wait()
    assert all(len(receiver.events) == 1 for receiver in waiting)
    assert rig.engine.meter.totals[FAILED] == 3
