"""What Triton has said of one streamed answer and nobody has read yet: filled on one thread, read on any."""

from __future__ import annotations

import threading
from collections.abc import Callable

from glmserve.contract import Finish
from glmserve.errors import DeadlineExceeded

_LOOK_S = 60.0


class StreamBuffer:
    """One answer's mail: one call at a time fills it, always from the same thread, and one thread at a time reads it.

    It holds no more than one answer, whose length is bounded. Whoever has read all there is either waits for more in
    `take`, or leaves the reading to the thread that brings the mail with `leave_to`, which wakes nobody.
    """

    def __init__(self) -> None:
        self._come = threading.Condition()
        self._sender: object | None = None
        self._mail: list[object] = []  # short, and lighter than a deque
        self._when_come: Callable[[], None] | None = None

    def open(self, sender: object) -> None:
        """From now on only `sender` fills it, with nothing left of an earlier one."""
        with self._come:
            self._sender = sender
            self._mail.clear()

    def close(self, sender: object) -> None:
        """Nobody wants to know any more what `sender` still has to say."""
        with self._come:
            if self._sender is sender:
                self._sender = None
                self._mail.clear()

    def put(self, sender: object, word: object) -> None:
        with self._come:
            if self._sender is not sender:
                return
            self._mail.append(word)
            when_come = self._when_come
            if when_come is None:
                self._come.notify()
        if when_come is not None:
            when_come()

    def take(self, timeout_s: float) -> object:
        """The next word; raises DeadlineExceeded when none comes in time."""
        with self._come:
            if not self._come.wait_for(lambda: self._mail, timeout_s):
                raise DeadlineExceeded
            return self._mail.pop(0)

    def holds_piece(self) -> bool:
        """Whether the next word is there and is a part of the answer with more to follow."""
        with self._come:
            return bool(self._mail) and getattr(self._mail[0], "finish", None) == Finish.RUNNING

    def is_quiet(self) -> bool:
        """Whether there is nothing to read, and something is still to come."""
        with self._come:
            return not self._mail and self._sender is not None

    def leave_to(self, when_come: Callable[[], None]) -> bool:
        """Has `when_come` called by whoever puts something in, after it has; False if there is something already."""
        with self._come:
            if self._mail or self._sender is None:
                return False
            self._when_come = when_come
            return True

    def sleep(self) -> None:
        """Returns when what `leave_to` began was taken back; the end of an answer, which its deadline bounds, is."""
        with self._come:
            while self._when_come is not None:
                self._come.wait(_LOOK_S)

    def take_back(self) -> None:
        """Ends what `leave_to` began, and whoever sleeps goes on."""
        with self._come:
            self._when_come = None
            self._come.notify_all()
