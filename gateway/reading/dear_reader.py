"""Reads dear bodies in a process of its own, so that nobody else waits for Python's lock meanwhile."""

from __future__ import annotations

import math
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from gateway.deadline import Deadline
from gateway.limits.turns import Turns
from gateway.reading.process import IDLE_S
from glmserve.errors import DeadlineExceeded, GlmServeError, InvalidInput, Overloaded
from glmserve.system.idle_processes import IdleProcesses, has_ended, import_path
from glmserve.system.stopped import is_stopped

T = TypeVar("T")
READ_CPU_S = 1.5
"""Processor time that reading a body may take; the dearest that is accepted takes a fifth of it."""
READ_MEMORY_BYTES = 256 << 20
_END_WAIT_S = 0.2
_LOOK_EVERY_S = 2.0
_MODULE = "gateway.reading.process"


class DearReader:
    """One process, which the first dear body starts; any thread may ask. Callers take turns."""

    def __init__(self, timeout_s: float, cpu_s: float = READ_CPU_S) -> None:
        """`timeout_s` is how long a body may wait for its turn and be read."""
        self._timeout_s, self._cpu_s = timeout_s, cpu_s
        self.turns = Turns()
        """Also of whatever else is done to dear bodies."""
        self._processes = IdleProcesses(lambda: _Process(cpu_s))

    def read(
        self, caller: str, function: Callable[..., T], body: bytes | str, *arguments: Any, within_s: float = math.inf
    ) -> T:
        """What `function(body, *arguments)` returns or raises, where its errors are ours; a function of a module.

        A text is handed over in UTF-8, once its turn has come. Raises DeadlineExceeded, also where `within_s` is
        over sooner than the reader's own patience, InvalidInput for a body that takes too much time or memory, and
        Overloaded where somebody has stopped the process, which is then replaced.
        """
        deadline = Deadline.after(min(self._timeout_s, within_s))
        with self.turns.take(caller, deadline):
            process = self._processes.take()
            try:
                packed = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
                answer = process.ask(pickle.dumps((function, arguments)), packed, deadline)
            except _Ended as error:
                raise _why(process.end(), self._cpu_s) from error
            except BaseException:
                process.end(wait_s=0.0)
                raise
            self._processes.give_back(process)
        said = pickle.loads(answer)
        if said is None:
            raise _too_much_memory()
        if isinstance(said, GlmServeError):
            raise said
        result: T = said[0]
        return result

    def close(self) -> None:
        """Ends the process, unless it reads; then it ends with what it reads."""
        self._processes.close()


class _Ended(Exception):
    """The process ended without a word."""


class _Process:
    def __init__(self, cpu_s: float) -> None:
        self._asked_s = time.monotonic()
        self._socket, theirs = socket.socketpair()
        self._channel = Connection(os.dup(self._socket.fileno()))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", _MODULE, str(theirs.fileno()), str(cpu_s), str(READ_MEMORY_BYTES)],
                env={"PYTHONPATH": import_path()},  # none of our own settings
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )

    def ask(self, question: bytes, body: bytes, deadline: Deadline) -> bytes:
        """Raises _Ended, DeadlineExceeded and Overloaded; after each of them the process has to be ended."""
        self._asked_s = time.monotonic()
        try:
            self._bound(socket.SO_SNDTIMEO, deadline)
            self._channel.send_bytes(question)
            self._channel.send_bytes(body)
            while not self._channel.poll(min(deadline.left_s(), _LOOK_EVERY_S)):
                if is_stopped(self._process.pid):
                    raise Overloaded
            self._bound(socket.SO_RCVTIMEO, deadline)
            return self._channel.recv_bytes()
        except BlockingIOError:
            raise DeadlineExceeded from None
        except (EOFError, OSError):
            raise _Ended from None

    def _bound(self, which: int, deadline: Deadline) -> None:
        """Lets no write, or read, wait longer: a process may stand still, or be long in starting."""
        microseconds = math.ceil(deadline.left_s() * 1e6)
        self._socket.setsockopt(socket.SOL_SOCKET, which, struct.pack("ll", *divmod(microseconds, 1_000_000)))

    def is_fit(self) -> bool:
        """Whether it lives, does not stand still and is not about to end for want of bodies."""
        is_fresh = time.monotonic() - self._asked_s < IDLE_S / 2
        return self._process.poll() is None and is_fresh and not is_stopped(self._process.pid)

    def end(self, wait_s: float = _END_WAIT_S) -> int:
        """Ends it in any case; its exit code, 0 for one that we had to kill because it had not ended in time."""
        with suppress(OSError):
            self._channel.close()
        self._socket.close()
        return self._process.returncode if has_ended(self._process, wait_s) else 0


def _why(exit_code: int, cpu_s: float) -> GlmServeError:
    if exit_code == -signal.SIGPROF:
        return InvalidInput(f"Reading the request body takes more than {cpu_s:g} s of processor time.")
    if exit_code == -signal.SIGABRT:  # what is written in Rust ends so when it gets no memory
        return _too_much_memory()
    if exit_code == -signal.SIGKILL:  # by the kernel, for want of memory, or by an operator
        return Overloaded()
    return GlmServeError()


def _too_much_memory() -> InvalidInput:
    return InvalidInput(f"Reading the request body takes more than {READ_MEMORY_BYTES >> 20} MiB of memory.")
