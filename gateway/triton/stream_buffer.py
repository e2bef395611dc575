"""What Triton has sent of one streamed answer and nobody has read yet: filled on one thread, read on any."""

from __future__ import annotations

import threading
from collections.abc import Callable

from glmserve.contract import Finish
from glmserve.errors import DeadlineExceeded

_RECHECK_S = 60.0


class StreamBuffer:
    """One answer's unread messages: one call at a time fills it, on one thread, and one thread at a time reads it.

    It holds no more than one answer, whose length is bounded. Whoever has read everything either waits for more in
    `get`, or attaches a callback, which runs on the thread that fills the buffer and wakes nobody.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sender: object | None = None
        self._messages: list[object] = []  # short, and lighter than a deque
        self._on_message: Callable[[], None] | None = None

    def open(self, sender: object) -> None:
        """From now on only `sender` fills it; what an earlier sender left is dropped."""
        with self._changed:
            self._sender = sender
            self._messages.clear()

    def close(self, sender: object) -> None:
        """Drops what `sender` left, and whatever it still sends."""
        with self._changed:
            if self._sender is sender:
                self._sender = None
                self._messages.clear()

    def put(self, sender: object, message: object) -> None:
        """Adds a message and runs the attached callback, if there is one."""
        with self._changed:
            if self._sender is not sender:
                return
            self._messages.append(message)
            on_message = self._on_message
            if on_message is None:
                self._changed.notify()
        if on_message is not None:
            on_message()

    def get(self, timeout_s: float) -> object:
        """The next message; raises DeadlineExceeded when none comes in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._messages, timeout_s):
                raise DeadlineExceeded
            return self._messages.pop(0)

    def next_is_piece(self) -> bool:
        """Whether the next message is there and is a part of the answer with more to follow."""
        with self._changed:
            return bool(self._messages) and getattr(self._messages[0], "finish", None) == Finish.RUNNING

    def is_waiting(self) -> bool:
        """Whether there is nothing to read, and more is to come."""
        with self._changed:
            return not self._messages and self._sender is not None

    def attach(self, on_message: Callable[[], None]) -> bool:
        """Has `put` call `on_message` after each message; False, and nothing attached, unless the buffer is waiting."""
        with self._changed:
            if self._messages or self._sender is None:
                return False
            self._on_message = on_message
            return True

    def wait_detached(self) -> None:
        """Blocks until `detach()`, which always comes by the answer's deadline."""
        with self._changed:
            while self._on_message is not None:
                self._changed.wait(_RECHECK_S)

    def detach(self) -> None:
        """Ends what `attach` began, and wakes whoever waits for that."""
        with self._changed:
            self._on_message = None
            self._changed.notify_all()
