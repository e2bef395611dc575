"""A tritonserver on loopback: the binary of the nvidia-pytriton wheel, with a model repository of ours."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import secrets
import sys
import sysconfig
import time
from pathlib import Path
from types import TracebackType

from glmserve.build.certificate import REQUIRE_VARIABLE
from glmserve.errors import BadArtifact
from glmserve.system.runtime_folder import RuntimeFolder
from launcher.build_view import lay_out
from launcher.c_library import memory_variables
from launcher.children import Child
from launcher.probe import START_TIMEOUT_VARIABLE, get

EXIT_TIMEOUT_S = 10
KILL_AFTER_S = EXIT_TIMEOUT_S + 5
_PROBE_TIMEOUT_S = 1.0
_POLL_S = 0.05
_LOG_LINES = 25
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
        require_certificate: bool = True,
    ) -> None:
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
        """Where the server writes; the folder goes with the server."""
        if self._runtime is None:
            raise RuntimeError("the server was not started")
        return self._runtime.path / "triton.log"

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    def start(self) -> None:
        """Starts the process; raises TritonFailed when this Python has none to start."""
        wheel = _wheel_folder()
        self._runtime = RuntimeFolder(_FOLDER_PREFIX, _remove_shared_memory)
        try:
            repository = lay_out(self._repository.parent, self._runtime.path / "build")
        except BadArtifact as error:
            raise TritonFailed(error.message) from None
        backends = _link_backends(wheel, self._runtime.path)
        command = [str(wheel / "bin" / "tritonserver"), *self._options(repository, backends)]
        with self.log_path.open("wb") as log:
            environment = _environment() | {REQUIRE_VARIABLE: str(self._require_certificate).lower()}
            self._child = Child("tritonserver", command, environment, self._runtime.path, log)

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
        raise TritonFailed(f"Triton ended while it started.\n{self.log_tail()}")

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
        """The last lines of the server's log, for whoever must find out."""
        lines = self.log_path.read_text("utf-8", errors="replace").splitlines()
        return "\n".join(["The end of its log:", *(f"  {line}" for line in lines[-_LOG_LINES:])])

    def stop(self, patience_s: float = KILL_AFTER_S) -> None:
        """Ends the server within `patience_s` and removes what it left; harmless when it never started."""
        try:
            if self._child is not None:
                self._child.stop(patience_s)
        finally:
            self._child = None
            if self._runtime is not None:
                self._runtime.remove()
                self._runtime = None

    def _options(self, repository: Path, backends: Path) -> list[str]:
        key = secrets.token_hex(16)  # told to nobody: the closed parts stay closed
        return [
            f"--id={self._id}",
            f"--model-repository={repository}",
            f"--backend-directory={backends}",
            "--model-control-mode=none",
            "--disable-auto-complete-config",
            *(f"--{name}-address={self.host}" for name in self._ports),
            *(f"--{name}-port={port}" for name, port in self._ports.items()),
            f"--http-restricted-api={_CLOSED_APIS}:closed={key}",
            f"--grpc-restricted-protocol={_CLOSED_APIS}:closed={key}",
            "--grpc-keepalive-time=5000",  # a frozen client is noticed, and its answer cancelled
            "--grpc-keepalive-timeout=5000",
            f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
            f"--backend-config=python,shm-region-prefix-name={_shm_prefix(backends.parent)}",
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


def _wheel_folder() -> Path:
    spec = importlib.util.find_spec("pytriton")  # finds without importing, which takes seconds
    if spec is None or not spec.submodule_search_locations:
        raise TritonFailed("The package nvidia-pytriton, which carries tritonserver, is not installed.")
    return Path(next(iter(spec.submodule_search_locations))) / "tritonserver"


def _link_backends(wheel: Path, runtime: Path) -> Path:
    """A backend folder in which the stub of this Python lies beside the library, where Triton looks for it."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = wheel / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise TritonFailed(f"The nvidia-pytriton wheel has no stub for Python {version}.")
    library = f"libpython{version}.so.1.0"
    beside = Path(sysconfig.get_config_var("LIBDIR")) / library
    if not beside.exists() and ctypes.util.find_library(f"python{version}") is None:
        raise TritonFailed(
            f"Triton's stub needs {library}, which this Python lacks: install it (apt-get install libpython{version}), "
            "or make .venv with a Python that was built with --enable-shared."
        )
    backends = runtime / "backends"
    (backends / "python").mkdir(parents=True)
    for path in [*(wheel / "backends" / "python").glob("*.*"), stub]:
        (backends / "python" / path.name).symlink_to(path)
    return backends


def _environment() -> dict[str, str]:
    """Our environment, changed so that Triton's stubs run this very Python with its packages."""
    environment = dict(os.environ)
    libraries = [sysconfig.get_config_var("LIBDIR"), environment.get("LD_LIBRARY_PATH")]
    environment["LD_LIBRARY_PATH"] = ":".join(filter(None, libraries))
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment.get('PATH', '')}"
    environment["PYTHONDONTWRITEBYTECODE"] = "1"  # a build is immutable
    environment.setdefault("OMP_NUM_THREADS", "1")  # onnxruntime has its own threads
    return environment | memory_variables(environment)
