"""How much one caller may ask for: requests and picture tokens a minute, and requests at a time."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from limits import RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from gateway.errors import RateLimited
from gateway.limits.auth import Caller
from gateway.settings import GatewaySettings

_TRY_AGAIN_S = 5.0
_IPV6_LINE_BITS = 64


@dataclass(frozen=True)
class Standing:
    """What is left of a limit, as the X-RateLimit headers tell it."""

    limit: int
    remaining: int
    reset_s: int

    def headers(self) -> dict[str, str]:
        values = {"Limit": self.limit, "Remaining": self.remaining, "Reset": self.reset_s}
        return {f"X-RateLimit-{name}": str(value) for name, value in values.items()}


_Count = Callable[[int, str, str, int], tuple[bool, Standing]]
"""Takes a limit, whose and of what it is, and a cost."""


class RateLimitCounters:
    """Counts by the minute, in Redis where there is one, else or while that is out of reach in this process."""

    def __init__(self, redis_url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._memory = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._shared = None
        if redis_url:
            from gateway.limits.redis_storage import redis_storage  # 12 MB that a gateway without Redis does not need

            self._shared = SlidingWindowCounterRateLimiter(redis_storage(redis_url))
        self._clock = clock
        self._lock = threading.Lock()
        self._down_until_s: float | None = None  # while Redis is out of reach: when it is tried again

    def hit(self, limit: int, who: str, what: str, cost: int = 1) -> tuple[bool, Standing]:
        """Whether there was room for `cost`, which is then taken, and what is left."""
        return self._count(limit, who, what, cost, takes=True)

    def test(self, limit: int, who: str, what: str, cost: int) -> tuple[bool, Standing]:
        """Whether there would be room for `cost`, and what is left; nothing is taken, for nothing can be put back."""
        return self._count(limit, who, what, cost, takes=False)

    def _count(self, limit: int, who: str, what: str, cost: int, takes: bool) -> tuple[bool, Standing]:
        item = RateLimitItemPerMinute(limit)
        if self._shared is not None and self._may_try():
            try:
                found = _counted(self._shared, item, who, what, cost, takes)
                self._down_until_s = None
                return found
            except StorageError:
                self._note_failure()
        return _counted(self._memory, item, who, what, cost, takes)

    def _may_try(self) -> bool:
        """Whether to ask Redis: always while it answers, else one request every few seconds."""
        with self._lock:
            if self._down_until_s is None:
                return True
            is_time = self._clock() >= self._down_until_s
            if is_time:
                self._down_until_s = self._clock() + _TRY_AGAIN_S
            return is_time

    def _note_failure(self) -> None:
        with self._lock:
            was_up, self._down_until_s = self._down_until_s is None, self._clock() + _TRY_AGAIN_S
        if was_up:
            structlog.get_logger().warning("redis_down", counting="in this process")


def _counted(
    limiter: SlidingWindowCounterRateLimiter, item: RateLimitItemPerMinute, who: str, what: str, cost: int, takes: bool
) -> tuple[bool, Standing]:
    has_room = (limiter.hit if takes else limiter.test)(item, who, what, cost=cost)
    found = limiter.get_window_stats(item, who, what)
    reset_s = max(1, math.ceil(found.reset_time - time.time()))
    return has_room, Standing(item.amount, max(0, found.remaining), min(reset_s, 60))


class RateLimiter:
    """Charges callers; shared between threads. Requests at a time are counted in each worker process by itself."""

    def __init__(self, settings: GatewaySettings, rates: RateLimitCounters) -> None:
        self._settings = settings
        self._rates = rates
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()

    def check_address(self, address: str, is_local: bool) -> None:
        """One attempt from an address, whoever it turns out to be; raises RateLimited."""
        if not is_local:
            limit = self._settings.address_requests_per_minute
            _charge(
                self._rates.hit,
                limit,
                _place(address),
                "requests",
                1,
                "There were too many requests from this address.",
            )

    def request(self, caller: Caller) -> Standing | None:
        """One request; raises RateLimited when the minute's are used up."""
        if caller.is_local:
            return None
        limit = (caller.key and caller.key.requests_per_minute) or self._settings.requests_per_minute
        return _charge(
            self._rates.hit, limit, _who(caller), "requests", 1, f"At most {limit} requests a minute are accepted."
        )

    def check_image_tokens(self, caller: Caller, tokens: int) -> None:
        """Raises RateLimited when a request has more picture tokens than the minute has left; takes none of them."""
        self._images(caller, tokens, self._rates.test)

    def images(self, caller: Caller, tokens: int) -> None:
        """Takes the picture tokens of a request that was let in; raises RateLimited if others were faster."""
        self._images(caller, tokens, self._rates.hit)

    def _images(self, caller: Caller, tokens: int, count: _Count) -> None:
        if caller.is_local or tokens == 0:
            return
        what = "picture tokens"
        limit = (caller.key and caller.key.image_tokens_per_minute) or self._settings.image_tokens_per_minute
        _charge(count, limit, _who(caller), what, tokens, f"At most {limit} {what} a minute are accepted.")
        if caller.key:
            limit = self._settings.address_image_tokens_per_minute
            refusal = f"There were too many {what} from this address."
            _charge(count, limit, _place(caller.address), what, tokens, refusal)

    @contextmanager
    def running(self, caller: Caller) -> Generator[None]:
        """Takes one of the caller's places, and one of its address; raises RateLimited when none is free."""
        if caller.is_local:
            yield
            return
        limit = (caller.key and caller.key.concurrent_requests) or self._settings.concurrent_requests
        taken = {_who(caller): limit}
        if caller.key:
            taken[_place(caller.address)] = self._settings.address_concurrent_requests
        with self._lock:
            for who, most in taken.items():
                if self._running[who] >= most:
                    raise RateLimited(f"At most {most} requests at a time are accepted.", 1)
            self._running.update(taken.keys())
        try:
            yield
        finally:
            with self._lock:
                self._running.subtract(taken.keys())
                for who in taken:
                    if not self._running[who]:
                        del self._running[who]


def _charge(count: _Count, limit: int, who: str, what: str, cost: int, refusal: str) -> Standing:
    has_room, standing = count(limit, who, what, cost)
    if not has_room:
        raise RateLimited(refusal, standing.reset_s)
    return standing


def _who(caller: Caller) -> str:
    return f"key:{caller.name}" if caller.key else _place(caller.address)


def _place(address: str) -> str:
    """Whom an address stands for: one line of IPv6 has 2^64 of them, which are counted as one."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is None:
        return f"network:{ipaddress.ip_network((ip, _IPV6_LINE_BITS), strict=False).network_address}"
    return f"address:{getattr(ip, 'ipv4_mapped', None) or ip}"
