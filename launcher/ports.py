"""Finds out before anything starts whether each port can be opened."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass


@dataclass(frozen=True)
class Port:
    """A port that somebody chose, and the setting that chose it."""

    host: str
    number: int
    setting: str


class UnusablePort(Exception):
    """A port cannot be opened; the message says why, and which setting chooses another."""


def claim(ports: list[Port]) -> None:
    """Raises UnusablePort for the first port that cannot be opened or that two settings share."""
    seen: dict[int, Port] = {}
    for port in ports:
        if port.number in seen:
            raise UnusablePort(
                f"{seen[port.number].setting} and {port.setting} are both {port.number}: give one of them another port."
            )
        seen[port.number] = port
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((port.host, port.number))
            except OSError as error:
                raise UnusablePort(_reason(port, error)) from None


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
