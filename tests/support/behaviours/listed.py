"""How a behaviour is listed: who asks for it, what it is, and the check that it holds here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from behaviours.asking import Service


@dataclass(frozen=True)
class Behaviour:
    """What the tests in `source` ask for; `check` is true where a service does it."""

    source: str
    sentence: str
    check: Callable[[Service], Any]


@dataclass(frozen=True)
class Declined:
    """What the tests in `source` ask for, why it is not done, and how many behaviours that are."""

    source: str
    sentence: str
    reason: str
    count: int = 1


def holds(source: str, sentence: str) -> Callable[[Callable[[Service], Any]], Behaviour]:
    """A decorator: makes a behaviour of its check."""
    return lambda check: Behaviour(source, sentence, check)


def refused(source: str, sentence: str, route: str, body: Any, *words: str) -> Behaviour:
    """A request that is a 400, whose sentence has all the words."""

    def check(service: Service) -> bool:
        reply = service.post(route, body)
        assert reply.status == 400, (reply.status, reply.text[:300])
        return all(word in reply.text for word in words)

    return Behaviour(source, sentence, check)


def answered(source: str, sentence: str, route: str, body: Any) -> Behaviour:
    """A request that has an answer."""

    def check(service: Service) -> bool:
        reply = service.post(route, body)
        assert reply.status == 200, (reply.status, reply.text[:300])
        return True

    return Behaviour(source, sentence, check)


def behaviours_of(module: dict[str, object]) -> list[Behaviour]:
    """Those that a module's decorated checks have become."""
    return [value for value in module.values() if isinstance(value, Behaviour)]
