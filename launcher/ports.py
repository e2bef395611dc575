"""Finds out before anything starts whether a port is free."""

from __future__ import annotations

import socket
from dataclasses import dataclass


@dataclass(frozen=True)
class Port:
    """A port someone chose, and the setting they chose it with."""

    host: str
    number: int
    setting: str


class PortTaken(Exception):
    """A port cannot be used; the message names it and its setting."""


def claim(ports: list[Port]) -> None:
    """Raises PortTaken for the first port that another program, or another of these, has already."""
    seen: dict[int, Port] = {}
    for port in ports:
        if port.number in seen:
            raise PortTaken(f"{port.setting} and {seen[port.number].setting} are both {port.number}.")
        seen[port.number] = port
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((port.host, port.number))
            except OSError:
                raise PortTaken(
                    f"Port {port.number} of {port.host} is in use or not allowed; choose another {port.setting}=."
                ) from None


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago, for tests."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
