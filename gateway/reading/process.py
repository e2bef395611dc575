"""The program of a reading process: body after body is read as it is told, each within its own bounds.

The kernel ends it when a body has used up its processor time. It ends itself when its worker hangs up or has died, and
when none came for a while.
"""

from __future__ import annotations

import os
import pickle
import resource
import signal
import sys
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gateway.reading.packing import packed
from glmserve.errors import GlmServeError

IDLE_S = 60.0
"""How long it waits for a body before it ends."""
_NICENESS = 5
"""On a core that both want, the threads that others wait for get three quarters of it."""
_UNBOUNDED = resource.RLIM_INFINITY
_NO_MEMORY = pickle.dumps(None)


def serve(worker: Connection, cpu_s: float, memory_bytes: int) -> None:
    """Reads until `worker` hangs up: a function and its other arguments come first, then the body that it reads."""
    while worker.poll(IDLE_S):
        try:
            function, arguments = pickle.loads(worker.recv_bytes())
            body = worker.recv_bytes()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        resource.setrlimit(resource.RLIMIT_AS, (_address_space_bytes() + memory_bytes, _UNBOUNDED))
        answer = _NO_MEMORY
        with suppress(MemoryError):
            answer = _read(function, body, arguments)
        resource.setrlimit(resource.RLIMIT_AS, (_UNBOUNDED, _UNBOUNDED))
        signal.setitimer(signal.ITIMER_PROF, 0)
        worker.send_bytes(answer)


def _read(function: Any, body: bytes, arguments: tuple[Any, ...]) -> bytes:
    """The pickled result; an error of ours is one. Raises MemoryError, at whose end all is free that it held."""
    try:
        return packed((function(body, *arguments),))
    except GlmServeError as error:
        return pickle.dumps(error)
    except MemoryError:
        raise
    except Exception:  # a mistake of ours, as it would be in a worker
        traceback.print_exc()
        return pickle.dumps(GlmServeError())


def _address_space_bytes() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()


def main() -> None:
    """Its arguments are the descriptor that it was given, and its bounds: seconds and bytes."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)  # whoever stops the service lets running answers end
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(_NICENESS)
    with Connection(int(sys.argv[1])) as worker:
        serve(worker, float(sys.argv[2]), int(sys.argv[3]))


if __name__ == "__main__":
    main()
