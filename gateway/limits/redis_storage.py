"""Rate-limit counters in Redis, with a short timeout and no retries."""

from __future__ import annotations

from typing import cast

from limits.storage import Storage, storage_from_string
from redis.backoff import NoBackoff
from redis.retry import Retry

REDIS_TIMEOUT_S = 0.2


def redis_storage(url: str) -> Storage:
    """Connects when it is first used; raises `limits.errors.StorageError` for every failure."""
    storage = storage_from_string(
        url,
        wrap_exceptions=True,
        socket_timeout=REDIS_TIMEOUT_S,
        socket_connect_timeout=REDIS_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),  # type: ignore[arg-type]  # handed on to redis as it is
    )
    return cast(Storage, storage)  # of an address that is not asynchronous
