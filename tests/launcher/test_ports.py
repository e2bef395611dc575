"""Each reason why a port cannot be opened is a sentence of its own, which names the setting."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import nullcontext, suppress

import pytest
from servers import is_alive

from bench.ports import free_port
from launcher.ports import Port, UnusablePort, claim

LOOPBACK = "127.0.0.1"


def test_two_settings_with_one_port_are_both_named() -> None:
    port = free_port()
    with pytest.raises(UnusablePort, match=rf"^PORT and TRITON_HTTP_PORT are both {port}: give one of them another"):
        claim([Port(LOOPBACK, port, "PORT"), Port(LOOPBACK, port, "TRITON_HTTP_PORT")])


def test_a_taken_port_is_not_called_forbidden() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            UnusablePort, match=rf"^Port {port} of 127\.0\.0\.1 is taken: .* another port with PORT=\.$"
        ):
            claim([Port(LOOPBACK, port, "PORT")])


def test_a_forbidden_port_is_not_called_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("launcher.ports.socket.socket.bind", refuse)  # the tests may run as root, who may open any
    sentence = r"^Port 80 is forbidden: this user may not open ports below 1024\. Choose a higher one with PORT=\.$"
    with pytest.raises(UnusablePort, match=sentence):
        claim([Port(LOOPBACK, 80, "PORT")])


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.name.invalid", "::1"])
def test_an_address_that_this_machine_lacks_is_named(host: str) -> None:
    with pytest.raises(UnusablePort, match=rf"^HOST={host} is no IPv4 address of this machine: choose one"):
        claim([Port(host, free_port(), "PORT")])


@pytest.mark.slow
def test_a_port_whose_holder_shows_itself_no_more_is_soon_free() -> None:
    """So holds it the socket of a process that is just ending: nobody is seen listening, and it cannot be opened."""
    with socket.socket() as held:
        held.bind((LOOPBACK, free_port()))
        port, told = held.getsockname()[1], list[str]()
        soon = threading.Timer(0.5, held.close)
        soon.start()
        claim([Port(LOOPBACK, port, "PORT")], told.append)
        soon.join()
    assert not told


@pytest.mark.slow
def test_a_port_that_stays_held_by_nobody_who_is_seen_is_taken() -> None:
    with socket.socket() as held:
        held.bind((LOOPBACK, free_port()))
        with pytest.raises(UnusablePort, match="is taken"):
            claim([Port(LOOPBACK, held.getsockname()[1], "PORT")])


@pytest.mark.parametrize("is_stopped", [True, False])
def test_what_a_dead_launcher_left_is_killed_only_if_it_stands_still(
    is_stopped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that stands still does not hear that it is to end. One that runs may be somebody's service."""
    monkeypatch.setattr("launcher.ports._ENDING_S", 1.0)
    port = free_port()
    listen = (
        f"import os, socket, time; s = socket.create_server(('{LOOPBACK}', {port})); print(os.getpid()); time.sleep(60)"
    )
    command = f'{sys.executable} -u -c "{listen}" --id=glm-left &'
    done = subprocess.Popen(["setsid", "bash", "-c", command], stdout=subprocess.PIPE, text=True)  # and bash ends
    assert done.stdout is not None
    orphan = int(done.stdout.readline())
    if is_stopped:
        os.kill(orphan, signal.SIGSTOP)
    told: list[str] = []
    try:
        with nullcontext() if is_stopped else pytest.raises(UnusablePort, match="is taken"):
            claim([Port(LOOPBACK, port, "PORT")], told.append)
        assert told == [f"Port {port} is held by a service that is ending; waiting for its end ..."]
        assert is_alive(orphan) is not is_stopped
    finally:
        done.stdout.close()
        done.wait(5)
        with suppress(ProcessLookupError):
            os.kill(orphan, signal.SIGKILL)
