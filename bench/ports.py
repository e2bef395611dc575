"""Finds ports for servers that are measured or tested."""

from __future__ import annotations

import random
import socket

_PORTS = range(15_000, 32_000)
"""Below those that Linux gives to outgoing connections, one of which may take a port before the server does."""
_TRIES = 1000
_given: set[int] = set()


def free_port(host: str = "127.0.0.1") -> int:
    """A port of this machine that was free a moment ago, by lot, so that other processes find other ones; a process is
    given none twice."""
    lots = random.SystemRandom()
    for _ in range(_TRIES):
        port = lots.choice(_PORTS)
        if port in _given:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            _given.add(port)
            return port
    raise OSError(f"no port of {_PORTS.start} to {_PORTS.stop - 1} is free")
