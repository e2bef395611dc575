"""Answers to several prompts of one request: generated at the same time, read as if they were one."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace

from gateway.chat.generation import Answer, Event, Piece
from gateway.triton.backend import Cancellation
from glmserve.errors import DeadlineExceeded, Overloaded

_MOST_UNREAD = 64
_BEGIN_AFTER_AN_END = 2
"""Of those that were refused: so they soon run side by side again where there is room."""
_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0
"""Between two tries of a request of which nothing runs; each one is twice as long as the last."""
_NOTHING = Answer("", "", "length", 0, timed_out=True)
_Message = tuple[int, Event | BaseException | None]
"""Whose it is, and an event, what it failed with, or None at its end."""


def side_by_side(
    begin: Sequence[Callable[[], Generator[Event]]],
    answers_each: int,
    cancellation: Cancellation,
    partial_on_timeout: bool = False,
) -> Generator[Event]:
    """The pieces of all answers as they come, then all answers as one; each prompt has `answers_each` of them.

    With `partial_on_timeout`, answers that have not begun when time runs out are empty, if one of the others has begun.

    A prompt that is refused for want of places while others of them run begins again when one of these has ended: a
    crowd of one request's own prompts refuses none of them. Once one of them has spoken, a refusal would throw away
    what there is, so the others try again until they are let in, or until their time runs out. Raises what the first of
    them fails with; the others are cancelled then, as when the generator is closed.
    """
    messages: queue.Queue[_Message] = queue.Queue(_MOST_UNREAD)
    threads: list[threading.Thread] = []
    waiting, speaking = deque(range(len(begin))), set[int]()
    ended: dict[int, Answer] = {}
    running, may_begin, pause_s = 0, len(begin), _PAUSE_S
    try:
        while running or waiting:
            while waiting and may_begin:
                number = waiting.popleft()
                reader = threading.Thread(
                    target=_read, args=(number, begin[number], messages), name="one of several", daemon=True
                )
                threads.append(reader)
                reader.start()
                running, may_begin = running + 1, may_begin - 1
            try:
                number, message = messages.get(timeout=None if running else pause_s)
            except queue.Empty:
                may_begin, pause_s = 1, min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            if isinstance(message, Overloaded) and number not in speaking and (running > 1 or speaking):
                waiting.append(number)
                running, may_begin = running - 1, 0
            elif isinstance(message, DeadlineExceeded) and partial_on_timeout and speaking:
                ended[number] = replace(_NOTHING, others=(_NOTHING,) * (answers_each - 1))
                running, may_begin = running - 1, len(waiting)
            elif isinstance(message, BaseException):
                raise message
            elif message is None:
                running, may_begin = running - 1, _BEGIN_AFTER_AN_END
            elif isinstance(message, Answer):
                ended[number] = message
            else:
                speaking.add(number)
                pause_s = _PAUSE_S
                yield _numbered(message, number * answers_each)
    finally:
        if running:
            cancellation.cancel()
            _await_ends(threads, messages)
    yield _joined([ended[number] for number in sorted(ended)])


def _read(number: int, begin: Callable[[], Generator[Event]], messages: queue.Queue[_Message]) -> None:
    """Runs on a thread of its own for each prompt."""
    try:
        with closing(begin()) as events:
            for event in events:
                messages.put((number, event))
        messages.put((number, None))
    except BaseException as error:  # raised again by who reads the messages
        messages.put((number, error))


def _await_ends(threads: list[threading.Thread], messages: queue.Queue[_Message]) -> None:
    """Takes what is still put, so that nobody waits for room; cancelled answers end in the engine's next step."""
    for thread in threads:
        while thread.is_alive():
            try:
                messages.get(timeout=0.05)
            except queue.Empty:
                continue


def _numbered(piece: Piece, first: int) -> Piece:
    others = tuple(replace(each, index=each.index + first) for each in piece.others)
    return replace(piece, index=piece.index + first, others=others)


def _joined(answers: list[Answer]) -> Answer:
    first, *others = (each for answer in answers for each in answer.answers)
    return replace(
        first,
        completion_tokens=sum(answer.completion_tokens for answer in answers),
        thinking_tokens=sum(answer.thinking_tokens for answer in answers),
        cached_tokens=sum(answer.cached_tokens for answer in answers),
        timings=next((answer.timings for answer in answers if answer.timings), None),
        others=tuple(others),
    )
