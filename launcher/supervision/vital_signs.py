"""Whether a tritonserver and its stubs are alive and at work, seen from outside: processes, and the engine's own pulse.

Triton does not restart the process of a Python model that died, and calls the model ready all the same. So we look at
the processes ourselves, a few times a second, and read from the metrics when the engine was last at work.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

STOPPED_FOR_S = 8.5
"""A stub that stands still for 10 s makes tritonserver abort (boost's lock_exception); 8 s it survives. The kernel says
who is stopped, so nobody who is merely slow is meant."""
CONTINUE_AFTER_S = 0.3
"""One that is stopped is told to go on after so long: that mends it without a restart, which takes seconds and ends all
answers under way. Triton gives up a model's process that takes no request for a second."""
FROZEN_AFTER_S = 10.0
"""One that is not stopped, and yet shows no life or does not answer; after a stop of 8 s its last sign is 9 s old."""
_PROBE_EVERY_S = 1.0
_PROBE_TIMEOUT_S = 2.0
_JOIN_S = 5.0
_RUNS_FOR_S = 1.0
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_MOST_BYTES = 4 << 20
_STUB = "triton_python_backend_stub"
_PULSE = re.compile(
    r"^(glm_engine_(?:healthy|alive_timestamp_seconds|loop_timestamp_seconds))(?:\{[^}]*\})? (\S+)$", re.M
)


@dataclass(frozen=True)
class Process:
    """A process by its id and the moment it began, which tells it from a later one with the same id."""

    pid: int
    started: int


@dataclass(frozen=True)
class Pulse:
    """What the engine's metrics say: its health, and how many seconds ago it was alive and its loop turned."""

    is_healthy: bool
    alive_age_s: float
    loop_age_s: float


@dataclass
class Frozen:
    """How long each process has stood still, as whoever looks several times a second saw it.

    One that goes on and is stopped again before it has run for a second has stood still all the while.
    """

    since: dict[int, float] = field(default_factory=dict)
    seen: dict[int, float] = field(default_factory=dict)  # when each last stood still
    has_told: bool = False

    def longest_s(self, stopped: set[int], now_s: float) -> float:
        """The longest of those that stand still now."""
        self.seen |= dict.fromkeys(stopped, now_s)
        self.seen = {pid: seen for pid, seen in self.seen.items() if now_s - seen < _RUNS_FOR_S}
        self.since = {pid: self.since.get(pid, now_s) for pid in self.seen}
        return max((now_s - self.since[pid] for pid in stopped), default=0.0)

    def due(self, stopped: set[int], now_s: float) -> set[int]:
        """Of these, the ones that have stood still for long enough to be told to go on."""
        return {pid for pid in stopped if now_s - self.since[pid] >= CONTINUE_AFTER_S}

    def tell_due_to_go_on(self, stopped: set[int], now_s: float, whose: str, tell: Callable[[str], None]) -> None:
        """Takes back the SIGSTOP of those that are due, and says so once."""
        due = self.due(stopped, now_s)
        if due and not self.has_told:
            tell(f"Somebody has stopped a process of {whose} (SIGSTOP). It is told to go on.")
        self.has_told = bool(due)
        for pid in due:
            tell_to_go_on(pid)


def ending(code: int) -> str:
    """An exit code in words: a negative one is a signal's number."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def children_of(pid: int) -> set[int]:
    """What any of a process's threads has started and nobody has collected; a thread that has ended has none."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for children in tasks for child in _read(children).split()}


def stubs_of(pid: int) -> set[Process]:
    """The stubs that this tritonserver has started and that have not been collected since."""
    found = set()
    for child in children_of(pid):
        if Path(_read(Path(f"/proc/{child}/cmdline")).partition("\0")[0]).name == _STUB:
            state = _state(child)
            if state is not None:
                found.add(Process(child, state[1]))
    return found


def is_running(process: Process) -> bool:
    """Whether it has not ended; one that nobody has collected yet has ended."""
    state = _state(process.pid)
    return state is not None and state[1] == process.started and state[0] not in "ZX"


def cpu_s(processes: Iterable[Process]) -> float:
    """Seconds of processor time that they have used, all threads together; those that have ended count for nothing."""
    fields = (_fields(process.pid) for process in processes)
    return sum((int(found[11]) + int(found[12])) * _TICK_S for found in fields if found)


def tell_to_go_on(pid: int) -> None:
    """Takes back a SIGSTOP; a process that a debugger holds stays stopped."""
    with suppress(OSError):
        os.kill(pid, signal.SIGCONT)


class PulseReader:
    """Reads the engine's pulse from Triton's metrics, on a thread of its own: a server that hangs delays only that."""

    def __init__(self, host: str, port: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._host, self._port, self._clock = host, port, clock
        self._lock = threading.Lock()
        self._answered_at = clock()
        self._pulse: Pulse | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
        self._thread.start()

    def silent_s(self) -> float:
        """Seconds since Triton last answered."""
        with self._lock:
            return self._clock() - self._answered_at

    def last(self) -> Pulse | None:
        """What it said then; None before the engine has said anything."""
        with self._lock:
            return self._pulse

    def close(self) -> None:
        self._closing.set()
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while not self._closing.wait(_PROBE_EVERY_S):
            text = metrics_page(self._host, self._port)
            if text is None:
                continue
            with self._lock:
                self._answered_at = self._clock()
                self._pulse = pulse_in(text, time.time())


def pulse_in(metrics: str, now_s: float) -> Pulse | None:
    """The pulse in a page of metrics; `now_s` is the wall clock's time, which the engine's stamps are in."""
    found = {name: float(value) for name, value in _PULSE.findall(metrics)}
    try:
        alive, loop = found["glm_engine_alive_timestamp_seconds"], found["glm_engine_loop_timestamp_seconds"]
        return Pulse(found["glm_engine_healthy"] > 0, now_s - alive, now_s - loop)
    except KeyError:
        return None


def metrics_page(host: str, port: int) -> str | None:
    """Triton's metrics as text; None when it does not answer in time."""
    try:
        with closing(http.client.HTTPConnection(host, port, timeout=_PROBE_TIMEOUT_S)) as connection:
            connection.request("GET", "/metrics")
            reply = connection.getresponse()
            return reply.read(_MOST_BYTES).decode("utf-8", "replace") if reply.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None


def _state(pid: int) -> tuple[str, int] | None:
    """A process's state letter and its start in clock ticks since boot; None when there is none."""
    fields = _fields(pid)
    return (fields[0], int(fields[19])) if fields else None


def _fields(pid: int) -> list[str]:
    """What /proc says of a process after its name; nothing where there is none."""
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return fields if len(fields) > 19 else []


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
