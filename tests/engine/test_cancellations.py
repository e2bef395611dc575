"""A request is cancelled by its key, whenever that is said."""

from __future__ import annotations

from glmserve.engine.triton.cancellations import Cancellations


def test_a_key_is_known_from_when_it_is_said_until_its_request_has_ended() -> None:
    cancels = Cancellations()
    assert not cancels.is_said(7)
    cancels.say(7)  # perhaps before the request comes
    assert cancels.is_said(7) and not cancels.is_said(8)
    cancels.forget(7)
    cancels.forget(9)
    assert not cancels.is_said(7)


def test_keys_whose_requests_never_come_are_forgotten_in_time() -> None:
    cancels = Cancellations()
    for key in range(10_000):
        cancels.say(key)
    assert cancels.is_said(9_999) and not cancels.is_said(0)
    assert len(cancels._said) < 5_000
