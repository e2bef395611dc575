"""Finds out before anything starts whether each port can be opened."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from launcher.predecessor import Holder, holder_of, kill_stopped

_ENDING_S = 45.0
"""What the gateway's last answers and tritonserver's exit may take together."""
_LOOK_EVERY_S = 0.2
_LAST_MOMENT_S = 5.0


@dataclass(frozen=True)
class Port:
    """A port that somebody chose, and the setting that chose it."""

    host: str
    number: int
    setting: str


class UnusablePort(Exception):
    """A port cannot be opened; the message says why, and which setting chooses another."""


def claim(ports: list[Port], tell: Callable[[str], None] = lambda _text: None) -> None:
    """Raises UnusablePort for the first port that cannot be opened or that two settings share.

    A port that a service of ours still holds while it ends is waited for, for a while, after `tell` was told.
    """
    seen: dict[int, Port] = {}
    predecessor = _Predecessor(tell)
    for port in ports:
        if port.number in seen:
            raise UnusablePort(
                f"{seen[port.number].setting} and {port.setting} are both {port.number}: give one of them another port."
            )
        seen[port.number] = port
        error = _open(port)
        if error is not None and error.errno == errno.EADDRINUSE:
            error = predecessor.wait_for(port, error)
        if error is not None:
            raise UnusablePort(_reason(port, error))


class _Predecessor:
    """The service that ran here before, as long as it ends."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._give_up = time.monotonic() + _ENDING_S
        self._seen_at: float | None = None
        self._has_told = False

    def wait_for(self, port: Port, error: OSError) -> OSError | None:
        """Waits until the port is free, or is not held by a service that ends; why it cannot be opened then.

        What a dead launcher left, and what stands still and so cannot end, is killed after that time.
        """
        while self._is_ending(port.number) and time.monotonic() < self._give_up:
            time.sleep(_LOOK_EVERY_S)
            again = _open(port)
            if again is None:
                return None
            error = again
        if time.monotonic() >= self._give_up and holder_of(port.number) is Holder.ENDING:
            kill_stopped(port.number)
            return self._freed(port, error)
        return error

    def _freed(self, port: Port, error: OSError) -> OSError | None:
        give_up = time.monotonic() + _LAST_MOMENT_S
        while (again := _open(port)) is not None and time.monotonic() < give_up:
            error = again
            time.sleep(_LOOK_EVERY_S)
        return error if again is not None else None

    def _is_ending(self, port: int) -> bool:
        """A process that is just ending shows its sockets no more, and holds them for a moment yet."""
        now, holder = time.monotonic(), holder_of(port)
        if holder is Holder.ENDING:
            if not self._has_told:
                self._has_told = True
                self._tell(f"Port {port} is held by a service that is ending; waiting for its end ...")
            self._seen_at = now
        elif holder is Holder.UNSEEN and self._seen_at is None:
            self._seen_at = now
        return self._seen_at is not None and now - self._seen_at < _LAST_MOMENT_S


def _open(port: Port) -> OSError | None:
    """Why the port cannot be opened; None when it can."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((port.host, port.number))
        except OSError as error:
            return error
    return None


def _reason(port: Port, error: OSError) -> str:
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return (
            f"HOST={port.host} is no IPv4 address of this machine: choose one that it has, "
            "or 127.0.0.1 (this machine alone) or 0.0.0.0 (all its addresses)."
        )
    if error.errno == errno.EACCES:
        return (
            f"Port {port.number} is forbidden: this user may not open ports below 1024. "
            f"Choose a higher one with {port.setting}=."
        )
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port.number} of {port.host} is taken: another program listens there. "
            f"End that program, or choose another port with {port.setting}=."
        )
    return f"Port {port.number} of {port.host} cannot be opened ({error.strerror}); choose another {port.setting}=."
