"""One tritonserver as a child process, pointed at a fresh view of a build."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType

from glmserve.build.certificate import REQUIRE_VARIABLE
from glmserve.errors import BadArtifact
from glmserve.limits import BLS_THREADS
from glmserve.system.runtime_folder import RuntimeFolder
from launcher.build_view import lay_out
from launcher.children import Child
from launcher.installation import Installation, NotInstalled, of_the_wheel
from launcher.logs import log_tail
from launcher.probe import START_TIMEOUT_VARIABLE, get

EXIT_TIMEOUT_S = 10
_GRACE_S = 5
_PROBE_TIMEOUT_S = 1.0
_POLL_S = 0.05
_SHARED_MEMORY = Path("/dev/shm")
_FOLDER_PREFIX = "glm-triton-"
_CLOSED_APIS = "model-repository,shared-memory,model-config,statistics,trace,logging"


class TritonFailed(Exception):
    """tritonserver could not be started; the message says why and shows the end of its log."""


class TritonServer:
    """One tritonserver, from `start` to `stop` or as a `with` block; its end leaves no process and no shared memory."""

    def __init__(
        self,
        repository: Path,
        http_port: int,
        grpc_port: int,
        metrics_port: int,
        host: str = "127.0.0.1",
        load_timeout_s: float = 120.0,
        require_certificate: bool | None = True,
        install: Callable[[Path], Installation] = of_the_wheel,
        options: Sequence[str] = (),
        keeps_log: bool = True,
        exit_timeout_s: int = EXIT_TIMEOUT_S,
        listen: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """It listens on `listen`, or on `host` alone, where we ask it. `install` finds the program; `options` are more
        of tritonserver's own, `environment` what it finds there besides ours. Its log goes into its folder, or to our
        output if it `keeps_log` not. `require_certificate` None leaves that to the environment."""
        self.host = host
        self.http_port = http_port
        self.http_url = f"http://{host}:{http_port}"
        self.grpc_url = f"grpc://{host}:{grpc_port}"
        self.metrics_url = f"http://{host}:{metrics_port}/metrics"
        self._repository = repository
        self.metrics_port = metrics_port
        self._id = f"glm-{secrets.token_hex(8)}"  # tells our server from another one that holds the port
        self._ports = {"http": http_port, "grpc": grpc_port, "metrics": metrics_port}
        self._load_timeout_s = load_timeout_s
        self._require_certificate = require_certificate
        self._listen = listen or host
        self._install, self._more_options = install, options
        self._keeps_log, self._exit_timeout_s = keeps_log, exit_timeout_s
        self._more_environment = dict(environment or {})
        self._runtime: RuntimeFolder | None = None
        self._child: Child | None = None

    def __enter__(self) -> TritonServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def log_path(self) -> Path:
        """Where the server writes; the folder is removed with the server."""
        if self._runtime is None:
            raise RuntimeError("the server was not started")
        return self._runtime.path / "triton.log"

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    def start(self) -> None:
        """Starts the process; raises TritonFailed when this Python has no tritonserver that it can run."""
        self._runtime = RuntimeFolder(_FOLDER_PREFIX, _remove_shared_memory)
        folder = self._runtime.path
        try:
            repository = lay_out(self._repository.parent, folder / "build")
            installed = self._install(folder)
        except (BadArtifact, NotInstalled) as error:
            raise TritonFailed(str(error)) from None
        command = [installed.program, *self._options(repository, installed.backends), *self._more_options]
        environment = {**installed.environment, **self._more_environment}
        if self._require_certificate is not None:
            environment[REQUIRE_VARIABLE] = str(self._require_certificate).lower()
        with self.log_path.open("wb") if self._keeps_log else nullcontext() as log:
            self._child = Child("tritonserver", command, environment, folder, log)

    def wait_ready(self, timeout_s: float) -> None:
        """Returns once every model is loaded; raises TritonFailed when it ends first or takes longer."""
        give_up = time.monotonic() + timeout_s
        while self.exit_code() is None:
            if self.is_ready():
                return
            if time.monotonic() > give_up:
                raise TritonFailed(
                    f"Triton was not ready within {timeout_s:g} s ({START_TIMEOUT_VARIABLE}).\n{self.log_tail()}"
                )
            time.sleep(_POLL_S)
        raise TritonFailed(f"Triton ended while it started (exit code {self.exit_code()}).\n{self.log_tail()}")

    def is_ready(self) -> bool:
        """Whether every model is loaded, as this very server says; raises TritonFailed when another holds the port."""
        reply = get(self.host, self.http_port, "/v2/health/ready", _PROBE_TIMEOUT_S)
        if reply is None or reply.status != 200:
            return False
        who = get(self.host, self.http_port, "/v2", _PROBE_TIMEOUT_S)
        if who is None or who.status != 200:
            return False
        if who.values.get("name") != self._id:
            raise TritonFailed(f"Another Triton answers on {self.http_url}: stop it, or choose other TRITON_*_PORT=.")
        return True

    def exit_code(self) -> int | None:
        """None while it runs."""
        if self._child is None:
            raise RuntimeError("the server was not started")
        return self._child.exit_code()

    def log_tail(self) -> str:
        """The last lines of the server's log."""
        return log_tail(self.log_path) if self._keeps_log else "Its log is above."

    def stop(self, patience_s: float | None = None) -> None:
        """Ends the server within `patience_s`, or a little more than its exit timeout, and removes what it left.

        Does nothing if it never started.
        """
        try:
            if self._child is not None:
                self._child.stop(self._exit_timeout_s + _GRACE_S if patience_s is None else patience_s)
        finally:
            self._child = None
            if self._runtime is not None:
                self._runtime.remove()
                self._runtime = None

    def _options(self, repository: Path, backends: Path | None) -> list[str]:
        key = secrets.token_hex(16)  # nobody is told, so these APIs stay closed
        return [
            f"--id={self._id}",
            f"--model-repository={repository}",
            *([f"--backend-directory={backends}"] if backends else []),
            "--model-control-mode=none",
            "--disable-auto-complete-config",
            *(f"--{name}-address={self._listen}" for name in self._ports),
            *(f"--{name}-port={port}" for name, port in self._ports.items()),
            f"--http-restricted-api={_CLOSED_APIS}:closed={key}",
            f"--grpc-restricted-protocol={_CLOSED_APIS}:closed={key}",
            "--grpc-keepalive-time=5000",  # notices a frozen client, whose answer is then cancelled
            "--grpc-keepalive-timeout=5000",
            f"--exit-timeout-secs={self._exit_timeout_s}",
            f"--backend-config=python,shm-region-prefix-name={_shm_prefix(repository.parents[1])}",
            f"--backend-config=python,thread-pool-size={BLS_THREADS}",
            f"--backend-config=python,stub-timeout-seconds={int(self._load_timeout_s)}",
            "--http-thread-count=2",
            "--allow-gpu-metrics=false",
            "--log-info=false",
        ]


def _shm_prefix(folder: Path) -> str:
    """What the names of a server's shared memory begin with, from its runtime folder's."""
    return f"glm_{folder.name.removeprefix(_FOLDER_PREFIX)}_"


def _remove_shared_memory(folder: Path) -> None:
    for region in _SHARED_MEMORY.glob(f"{_shm_prefix(folder)}*"):
        region.unlink(missing_ok=True)
