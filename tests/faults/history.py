"""What clients saw of a service under faults, and whether it may have been so: a pure checker of histories.

A history is a list of events in the order in which they were recorded. The checker knows the right answer of every
request, so it needs no log of the service.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

MAY_COME_BACK = frozenset({429, 503})
"""Statuses that must say when to come back."""
PROMISED_STATUSES = frozenset({429, 503, 504})
"""What a right request may get instead of its answer."""
PROMISED_CODES = frozenset({"backend_down", "overloaded", "deadline_exceeded", "rate_limit_exceeded"})
"""Codes of errors that may end a stream; the vision route sends a sentence without a code."""


class How(StrEnum):
    """How a request can end."""

    DONE = "done"
    ERROR = "error event"
    STATUS = "status"
    LEFT = "left"
    BROKEN = "broken"


@dataclass(frozen=True)
class Sent:
    """A client begins to send a request; `answer` is the text that the service must give."""

    at_s: float
    request_id: str
    client: str
    question: str
    answer: str


@dataclass(frozen=True)
class PieceCame:
    """A client has read a piece of a stream."""

    at_s: float
    request_id: str
    text: str


@dataclass(frozen=True)
class Ended:
    """A request has ended for its client.

    `text` is the answer as the last event or the whole body has it; `echoed_id` is the request id that the service
    answered with. Both are None where they did not come.
    """

    at_s: float
    request_id: str
    how: How
    status: int | None = None
    code: str | None = None
    text: str | None = None
    retry_after: str | None = None
    echoed_id: str | None = None


Event = Sent | PieceCame | Ended


class Rule(StrEnum):
    """What must hold."""

    UNIQUE_ID = "a request id is used once"
    KNOWN_ID = "nothing comes for a request that nobody sent"
    ONE_ENDING = "a request ends exactly once"
    NOTHING_AFTER = "nothing comes after the end"
    RIGHT_TEXT = "the text is the known answer, or a prefix of it where the ending is none"
    WHOLE = "the pieces of a stream add up to its last event"
    STATUS = "the status is a promised one"
    CODE = "the error's code is a promised one"
    RETRY_AFTER = "a 429 and a 503 say when to come back"
    OWN_ID = "an answer carries its own request id"
    UNBROKEN = "a connection breaks only where a fault broke it"
    IN_TIME = "a request ends in time"
    LEVEL = "afterwards everything is back to the level before"


@dataclass(frozen=True)
class Violation:
    """One rule that one request broke."""

    rule: Rule
    request_id: str
    text: str

    def __str__(self) -> str:
        return f"{self.request_id}: {self.rule}: {self.text}"


@dataclass(frozen=True)
class Terms:
    """What the faults of a run allow. `breaks` are spans of time (from, to) in which connections may break.

    `freezes` are spans in which a part that clients talk to stood still, which counts for no request's time.
    `breaking_clients` are clients behind something that cuts their connections at any time.
    """

    breaks: tuple[tuple[float, float], ...] = ()
    freezes: tuple[tuple[float, float], ...] = ()
    breaking_clients: frozenset[str] = frozenset()
    most_s: float = 45.0
    statuses: frozenset[int] = PROMISED_STATUSES


@dataclass
class _Request:
    """All that was recorded of one request id, in order."""

    sent: list[Sent] = field(default_factory=list)
    pieces: list[PieceCame] = field(default_factory=list)
    endings: list[Ended] = field(default_factory=list)
    late: int = 0


def check(history: Iterable[Event], terms: Terms | None = None) -> list[Violation]:
    """Every violation, in the order of the requests."""
    terms = terms or Terms()
    requests: dict[str, _Request] = defaultdict(_Request)
    for event in history:
        request = requests[event.request_id]
        if isinstance(event, Sent):
            request.sent.append(event)
            continue
        request.late += bool(request.endings)
        if isinstance(event, PieceCame):
            request.pieces.append(event)
        else:
            request.endings.append(event)
    return [
        Violation(rule, request_id, text)
        for request_id, request in requests.items()
        for rule, text in _faults(request, request_id, terms)
    ]


def compare_levels(
    before: Mapping[str, float], after: Mapping[str, float], slack: Mapping[str, float] | None = None
) -> list[Violation]:
    """What has grown by more than its slack, or is not known any more."""
    slack = slack or {}
    found = []
    for name, level in before.items():
        now = after.get(name)
        if now is None or now > level + slack.get(name, 0.0):
            found.append(
                Violation(Rule.LEVEL, name, f"{level:g} before, {'unknown' if now is None else f'{now:g}'} now")
            )
    return found


def tally(history: Iterable[Event]) -> Counter[str]:
    """How many requests ended how; a status counts as its number."""
    endings = (event for event in history if isinstance(event, Ended))
    return Counter(str(end.status) if end.how is How.STATUS else str(end.how) for end in endings)


def _faults(request: _Request, request_id: str, terms: Terms) -> list[tuple[Rule, str]]:
    if not request.sent:
        return [(Rule.KNOWN_ID, f"{len(request.pieces)} pieces and {len(request.endings)} endings")]
    sent = request.sent[0]
    found = [(Rule.UNIQUE_ID, f"sent {len(request.sent)} times")] if len(request.sent) > 1 else []
    if len(request.endings) != 1:
        found.append((Rule.ONE_ENDING, " and ".join(str(end.how) for end in request.endings) or "it never ended"))
    if request.late:
        found.append((Rule.NOTHING_AFTER, f"{request.late} more events"))
    joined = "".join(piece.text for piece in request.pieces)
    if not sent.answer.startswith(joined):
        found.append((Rule.RIGHT_TEXT, f"the pieces say {joined!r} and not {sent.answer!r}"))
    for end in request.endings[:1]:
        found += _faults_of_ending(sent, request.pieces, joined, end, terms)
    return found


def _faults_of_ending(
    sent: Sent, pieces: Sequence[PieceCame], joined: str, end: Ended, terms: Terms
) -> list[tuple[Rule, str]]:
    found: list[tuple[Rule, str]] = []
    if end.how is How.DONE:
        if end.status != 200:
            found.append((Rule.STATUS, f"an answer with status {end.status}"))
        if end.text != sent.answer:
            found.append((Rule.RIGHT_TEXT, f"it says {end.text!r} and not {sent.answer!r}"))
        if pieces and joined != end.text:
            found.append((Rule.WHOLE, f"{joined!r} and not {end.text!r}"))
    elif end.how is How.STATUS:
        if end.status not in terms.statuses:
            found.append((Rule.STATUS, f"status {end.status}"))
        if end.status in MAY_COME_BACK and not (end.retry_after or "").isdecimal():
            found.append((Rule.RETRY_AFTER, f"a {end.status} with Retry-After {end.retry_after}"))
        if pieces:
            found.append((Rule.STATUS, f"a {end.status} after {len(pieces)} pieces"))
    elif end.how is How.ERROR and end.status != 200:
        found.append((Rule.STATUS, f"an error event with status {end.status}"))
    elif end.how is How.BROKEN and not _may_break(sent, end, terms):
        found.append((Rule.UNBROKEN, f"after {len(pieces)} pieces, {end.at_s - sent.at_s:.1f} s after it was sent"))
    if end.how in (How.ERROR, How.STATUS) and end.code is not None and end.code not in PROMISED_CODES:
        found.append((Rule.CODE, end.code))
    if end.echoed_id is not None and end.echoed_id != sent.request_id:
        found.append((Rule.OWN_ID, f"it carries {end.echoed_id}"))
    still_s = sum(max(0.0, min(end.at_s, until) - max(sent.at_s, since)) for since, until in terms.freezes)
    if end.at_s - sent.at_s - still_s > terms.most_s:
        found.append((Rule.IN_TIME, f"it took {end.at_s - sent.at_s:.1f} s"))
    return found


def _may_break(sent: Sent, end: Ended, terms: Terms) -> bool:
    is_cut = sent.client in terms.breaking_clients
    return is_cut or any(sent.at_s <= until and end.at_s >= since for since, until in terms.breaks)
