"""A container's entry point: serves a build with the image's tritonserver, and starts it again when a part of it fails.

`serve-triton BUILD [more of tritonserver's options]`. TRITON_BACKENDS names another folder of backends than the
image's own, TRITON_LOAD_TIMEOUT_S the seconds that loading may take, TRITON_EXIT_TIMEOUT_S those that answers under way
have when it is told to end.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

from glmserve.build.manifest import REPOSITORY_FOLDER
from launcher.installation import of_the_image
from launcher.notify import notify
from launcher.supervision.triton_supervisor import LOOK_EVERY_S, TritonSupervisor
from launcher.supervision.vital_signs import children_of
from launcher.triton_server import TritonFailed, TritonServer

_USAGE, _NO_BUILD, _FAILED = 2, 4, 6
_EVERYWHERE = "0.0.0.0"
_PORTS = {"http": 8000, "grpc": 8001, "metrics": 8002}
_LOAD_TIMEOUT_VARIABLE = "TRITON_LOAD_TIMEOUT_S"
_LOAD_TIMEOUT_S, _EXIT_TIMEOUT_S = "900", "40"


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0 when told to end, 2 without a build, 4 for a folder that is none, 6 when Triton fails."""
    build, *options = (sys.argv[1:] if arguments is None else arguments) or [""]
    if not build:
        _say("Which build? serve-triton BUILD")
        return _USAGE
    if not (Path(build) / REPOSITORY_FOLDER).is_dir():
        _say(f"There is no build in {build}.")
        return _NO_BUILD
    load_timeout_s = float(os.environ.get(_LOAD_TIMEOUT_VARIABLE, _LOAD_TIMEOUT_S))
    exit_timeout_s = int(os.environ.get("TRITON_EXIT_TIMEOUT_S", _EXIT_TIMEOUT_S))
    http, grpc, metrics = (_port(name, options) for name in _PORTS)

    def make() -> TritonServer:
        return TritonServer(
            Path(build) / REPOSITORY_FOLDER,
            http,
            grpc,
            metrics,
            listen=_EVERYWHERE,
            load_timeout_s=load_timeout_s,
            require_certificate=None,
            install=of_the_image,
            options=options,
            keeps_log=False,
            exit_timeout_s=exit_timeout_s,
        )

    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    supervisor = TritonSupervisor(make, _tell, load_timeout_s, _LOAD_TIMEOUT_VARIABLE)
    try:
        supervisor.start()
        while not ended.wait(LOOK_EVERY_S):
            supervisor.look()
            _reap_orphans(supervisor.server.pid)
    except TritonFailed as error:
        _say(str(error))
        return _FAILED
    finally:
        notify("STOPPING=1")
        supervisor.stop()
    return 0


def _port(name: str, options: list[str]) -> int:
    """Triton's own default, or what the options say."""
    chosen = [text.partition("=")[2] for text in options if text.startswith(f"--{name}-port=")]
    return int(chosen[-1]) if chosen else _PORTS[name]


def _reap_orphans(server: int | None) -> None:
    """As a container's first process we inherit what a killed server leaves, and must collect it."""
    if os.getpid() != 1:
        return
    for child in children_of(os.getpid()):
        if child != server:
            with suppress(ChildProcessError):  # somebody else has collected it
                os.waitpid(child, os.WNOHANG)


def _tell(text: str) -> None:
    notify(f"STATUS={text}")
    _say(text)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
