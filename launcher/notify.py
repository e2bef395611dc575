"""Tells systemd how the service is, where it asks for that (Type=notify, WatchdogSec=): see sd_notify(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

_SYSTEMD = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


def without_systemd(environment: Mapping[str, str]) -> dict[str, str]:
    """For a child that would speak to systemd itself, as gunicorn does: only we know when the service is ready."""
    return {name: value for name, value in environment.items() if name not in _SYSTEMD}


def watchdog_interval_s() -> float | None:
    """How often systemd wants to hear WATCHDOG=1, halved to be safe; None where it does not ask."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 2e6 if ours and microseconds.isdecimal() and int(microseconds) else None


def notify(state: str) -> None:
    """Sends a line such as READY=1 or STATUS=…; does nothing where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto(state.encode(), name)
