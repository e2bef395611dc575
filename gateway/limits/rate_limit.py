"""How much one caller may ask for: requests and image tokens per minute, and concurrent requests."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

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
_ADDRESSES_KEPT = 4096


@dataclass(frozen=True)
class RateLimitStatus:
    """What is left of a limit, as the X-RateLimit headers say it: in our own names, and in OpenAI's."""

    limit: int
    remaining: int
    reset_s: int

    def request_headers(self) -> dict[str, str]:
        """Those of a limit of requests."""
        values = {"Limit": self.limit, "Remaining": self.remaining, "Reset": self.reset_s}
        return {f"X-RateLimit-{name}": str(value) for name, value in values.items()} | self._openai("Requests")

    def token_headers(self) -> dict[str, str]:
        """Those of a limit of tokens, which are an image's."""
        return self._openai("Tokens")

    def _openai(self, what: str) -> dict[str, str]:
        values = {"Limit": self.limit, "Remaining": self.remaining, "Reset": f"{self.reset_s}s"}
        return {f"X-RateLimit-{name}-{what}": str(value) for name, value in values.items()}


_Count = Callable[[int, str, str, int], tuple[bool, RateLimitStatus]]
"""Takes a limit, the key and the kind it is counted under, and a cost; returns whether there was room."""


class RateLimitCounters:
    """Counts per minute: in Redis if it is set and can be reached, else in this process."""

    def __init__(self, redis_url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._memory = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._shared = None
        if redis_url:
            from gateway.limits.redis_storage import redis_storage  # 12 MB that a gateway without Redis does not need

            self._shared = SlidingWindowCounterRateLimiter(redis_storage(redis_url))
        self._clock = clock
        self._lock = threading.Lock()
        self._down_until_s: float | None = None  # while Redis is out of reach: when it is tried again

    def hit(self, limit: int, key: str, what: str, cost: int = 1) -> tuple[bool, RateLimitStatus]:
        """Charges `cost` if there is room for it; whether there was, and what is left."""
        return self._count(limit, key, what, cost, charges=True)

    def test(self, limit: int, key: str, what: str, cost: int) -> tuple[bool, RateLimitStatus]:
        """Whether there is room for `cost`, and what is left; charges nothing, because a charge cannot be undone."""
        return self._count(limit, key, what, cost, charges=False)

    def _count(self, limit: int, key: str, what: str, cost: int, charges: bool) -> tuple[bool, RateLimitStatus]:
        item = RateLimitItemPerMinute(limit)
        if self._shared is not None and self._is_redis_due():
            try:
                found = _counted(self._shared, item, key, what, cost, charges)
                self._down_until_s = None
                return found
            except StorageError:
                self._note_failure()
        return _counted(self._memory, item, key, what, cost, charges)

    def _is_redis_due(self) -> bool:
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
    limiter: SlidingWindowCounterRateLimiter,
    item: RateLimitItemPerMinute,
    key: str,
    what: str,
    cost: int,
    charges: bool,
) -> tuple[bool, RateLimitStatus]:
    has_room = (limiter.hit if charges else limiter.test)(item, key, what, cost=cost)
    found = limiter.get_window_stats(item, key, what)
    reset_s = max(1, math.ceil(found.reset_time - time.time()))
    return has_room, RateLimitStatus(item.amount, max(0, found.remaining), min(reset_s, 60))


class RateLimiter:
    """Charges callers; shared between threads. Each worker process counts concurrent requests by itself."""

    def __init__(self, settings: GatewaySettings, rates: RateLimitCounters) -> None:
        self._settings = settings
        self._rates = rates
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()

    def check_address(self, address: str, is_exempt: bool) -> None:
        """Charges an address for one request, with a right key or a wrong one; raises RateLimited."""
        if not is_exempt:
            limit = self._settings.address_requests_per_minute
            _charge(
                self._rates.hit,
                limit,
                _address_key(address),
                "requests",
                1,
                "There were too many requests from this address.",
            )

    def charge_request(self, caller: Caller) -> RateLimitStatus | None:
        """Charges a caller for one request, and says what is left; raises RateLimited when the minute's are used up."""
        if caller.is_exempt:
            return None
        limit = (caller.key and caller.key.requests_per_minute) or self._settings.requests_per_minute
        return _charge(
            self._rates.hit,
            limit,
            caller_key(caller),
            "requests",
            1,
            f"At most {limit} requests a minute are accepted.",
        )

    def check_image_tokens(self, caller: Caller, tokens: int) -> None:
        """Raises RateLimited when a request has more image tokens than the minute has left; charges none."""
        if tokens:
            self._image_tokens(caller, tokens, self._rates.test)

    def charge_image_tokens(self, caller: Caller, tokens: int) -> RateLimitStatus | None:
        """Charges an admitted request's image tokens, and says what is left; raises RateLimited if others took them."""
        return self._image_tokens(caller, tokens, self._rates.hit if tokens else self._rates.test)

    def _image_tokens(self, caller: Caller, tokens: int, count: _Count) -> RateLimitStatus | None:
        if caller.is_exempt:
            return None
        what = "image tokens"
        limit = (caller.key and caller.key.image_tokens_per_minute) or self._settings.image_tokens_per_minute
        refusal = f"At most {limit} {what} a minute are accepted.{_advice(tokens, limit)}"
        left = _charge(count, limit, caller_key(caller), what, tokens, refusal)
        if caller.key and tokens:
            limit = self._settings.address_image_tokens_per_minute
            refusal = f"There were too many {what} from this address.{_advice(tokens, limit)}"
            _charge(count, limit, _address_key(caller.address), what, tokens, refusal)
        return left

    @contextmanager
    def concurrency_slot(self, caller: Caller) -> Generator[None]:
        """Counts one concurrent request of the caller and of its address; raises RateLimited if there are too many."""
        if caller.is_exempt:
            yield
            return
        limit = (caller.key and caller.key.concurrent_requests) or self._settings.concurrent_requests
        taken = {caller_key(caller): limit}
        if caller.key:
            taken[_address_key(caller.address)] = self._settings.address_concurrent_requests
        with self._lock:
            for key, most in taken.items():
                if self._running[key] >= most:
                    raise RateLimited(f"At most {most} requests at a time are accepted.", 1)
            self._running.update(taken.keys())
        try:
            yield
        finally:
            with self._lock:
                self._running.subtract(taken.keys())
                for key in taken:
                    if not self._running[key]:
                        del self._running[key]


def _charge(count: _Count, limit: int, key: str, what: str, cost: int, refusal: str) -> RateLimitStatus:
    has_room, status = count(limit, key, what, cost)
    if not has_room:
        raise RateLimited(refusal, status.reset_s)
    return status


def _advice(tokens: int, limit: int) -> str:
    """What helps a request that no minute has room for."""
    if tokens <= limit:
        return ""
    return f" This request alone has {tokens}, so to wait is in vain: send fewer or smaller images."


def caller_key(caller: Caller) -> str:
    """What a caller is counted under: its key, or its address where it has none."""
    return f"key:{caller.name}" if caller.key else _address_key(caller.address)


@lru_cache(_ADDRESSES_KEPT)
def _address_key(address: str) -> str:
    """The key an address is counted under; a /64 of IPv6, which one subscriber has, counts as one address."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is None:
        return f"network:{ipaddress.ip_network((ip, _IPV6_LINE_BITS), strict=False).network_address}"
    return f"address:{getattr(ip, 'ipv4_mapped', None) or ip}"
