"""API keys: a file of their hashes with names, roles and limits, which is read again whenever it changes."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import structlog
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from gateway.errors import BadKeyFile
from glmserve.system.file_lock import file_lock

PREFIX = "glm-"
_CHECK_EVERY_S = 1.0
_LOCK_TIMEOUT_S = 10.0
_NO_KEYS = (
    "{0} holds no keys, so nobody can ask anything: every request is a 401. "
    "Make a key with `python -m gateway keys create NAME --file {0}`."
)
Role = Literal["user", "metrics", "admin"]


class ApiKey(BaseModel):
    """One key; a limit of None means the gateway's default. The key itself is stored nowhere."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    role: Role = "user"
    requests_per_minute: int | None = Field(default=None, ge=1)
    concurrent_requests: int | None = Field(default=None, ge=1)
    image_tokens_per_minute: int | None = Field(
        default=None,
        ge=1,
        validation_alias=AliasChoices("image_tokens_per_minute", "picture_tokens_per_minute"),  # as 0.1.0 wrote it
    )


class _KeyFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: list[ApiKey] = []


def read_keys(path: Path) -> list[ApiKey]:
    """The keys in a file, none where there is no file; raises BadKeyFile when it cannot be read as one."""
    try:
        return _KeyFile.model_validate_json(path.read_bytes()).keys
    except FileNotFoundError:
        return []
    except (OSError, ValidationError):
        raise BadKeyFile(f"{path} cannot be read as a file of API keys.") from None


def create_key(path: Path, name: str, role: Role = "user", **limits: int | None) -> str:
    """Adds a key and returns it, the only time it can be seen; raises BadKeyFile when the name is taken or invalid."""
    secret = PREFIX + secrets.token_urlsafe(32)
    try:
        key = ApiKey.model_validate({"name": name, "sha256": _digest(secret), "role": role, **limits})
    except ValidationError:
        raise BadKeyFile(
            f"{name} cannot be a key: its name is letters, digits and _.-, its limits 1 or more."
        ) from None

    def add(keys: list[ApiKey]) -> list[ApiKey]:
        if any(other.name == name for other in keys):
            raise BadKeyFile(f"There is a key {name} already: revoke it first, or take another name.")
        return [*keys, key]

    _change(path, add)
    return secret


def revoke_key(path: Path, name: str) -> None:
    """Removes a key; raises BadKeyFile when there is none of that name."""

    def remove(keys: list[ApiKey]) -> list[ApiKey]:
        rest = [key for key in keys if key.name != name]
        if len(rest) == len(keys):
            raise BadKeyFile(f"There is no key {name}.")
        return rest

    _change(path, remove)


class KeyStore:
    """The keys of a file; a change takes effect within a second, and a broken file is ignored."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises BadKeyFile when the file is broken now."""
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._checked_at_s = clock()
        self._stamp = _stamp(path)
        self._by_digest = self._read()

    def find(self, secret: str) -> ApiKey | None:
        """The key, or None; how long it takes tells nothing about other keys."""
        self._reload_if_changed()
        digest = _digest(secret)
        key = self._by_digest.get(digest)
        return key if key is not None and hmac.compare_digest(key.sha256, digest) else None

    def _reload_if_changed(self) -> None:
        with self._lock:
            if self._clock() - self._checked_at_s < _CHECK_EVERY_S:
                return
            self._checked_at_s = self._clock()
            stamp = _stamp(self._path)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            try:
                self._by_digest = self._read()
            except BadKeyFile as error:
                structlog.get_logger().error("bad_key_file", error=error.message)

    def _read(self) -> dict[str, ApiKey]:
        keys = read_keys(self._path)
        if not keys:
            structlog.get_logger().warning("no_keys", file=str(self._path), message=_NO_KEYS.format(self._path))
        return {key.sha256: key for key in keys}


def _digest(secret: str) -> str:
    """A plain hash is enough: nobody can guess 32 random bytes."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _change(path: Path, change: Callable[[list[ApiKey]], list[ApiKey]]) -> None:
    """Rewrites the file, one writer at a time, and replaces it in one step; raises BadKeyFile when that fails.

    Only reading follows links (Kubernetes mounts keys as links): else whoever may write to the folder could have us
    overwrite any file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock, aside = path.with_name(f"{path.name}.lock"), path.with_name(f"{path.name}.new")
        _refuse_links(path, lock)
        with file_lock(lock, _LOCK_TIMEOUT_S):
            text = _KeyFile(keys=change(read_keys(path))).model_dump_json(indent=1, exclude_none=True)
            aside.unlink(missing_ok=True)  # of a command that was killed, or somebody's link
            opened = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(opened, "w", encoding="utf-8") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
    except TimeoutError:
        raise BadKeyFile(f"{path} is being changed by another command: try again when that has ended.") from None
    except OSError as error:
        raise BadKeyFile(f"The keys cannot be kept in {path}: {error.strerror}.") from None


def _refuse_links(*paths: Path) -> None:
    for path in paths:
        if path.is_symlink():
            raise BadKeyFile(f"{path} is a link, and keys are never written through one: name the file itself.")
