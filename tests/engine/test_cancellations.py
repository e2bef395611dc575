"""A request is cancelled by its key, whenever that is said."""

from __future__ import annotations

from glmserve.engine.triton.cancellations import Cancellations


def test_a_key_is_known_from_when_it_is_said_until_its_request_has_ended() -> None:
    cancellations = Cancellations()
    assert not cancellations.is_cancelled(7)
    cancellations.cancel(7)  # perhaps before the request comes
    assert cancellations.is_cancelled(7) and not cancellations.is_cancelled(8)
    cancellations.forget(7)
    cancellations.forget(9)
    assert not cancellations.is_cancelled(7)


def test_keys_whose_requests_never_come_are_forgotten_in_time() -> None:
    cancellations = Cancellations()
    for key in range(10_000):
        cancellations.cancel(key)
    assert cancellations.is_cancelled(9_999) and not cancellations.is_cancelled(0)
    assert len(cancellations._cancelled) < 5_000


def test_a_callback_runs_once_when_its_key_is_cancelled_even_before_it_came_and_never_after_the_end() -> None:
    cancellations, ran = Cancellations(), list[int]()
    cancellations.add_callback(1, lambda: ran.append(1))
    cancellations.cancel(1)
    cancellations.cancel(1)
    cancellations.cancel(2)
    cancellations.add_callback(2, lambda: ran.append(2))
    cancellations.add_callback(3, lambda: ran.append(3))
    cancellations.forget(3)
    cancellations.cancel(3)
    assert ran == [1, 2]
