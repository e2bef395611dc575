"""The service under test: its processes by their roles, and what it holds at a moment.

Every process here was started by us, listens on loopback, and keeps its files in one folder.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path

from eventually import eventually

from bench.ports import free_port
from bench.usage import words_of
from launcher.children import Child
from launcher.gateway_server import GatewayServer
from launcher.installation import of_the_wheel
from launcher.probe import get
from launcher.supervision.vital_signs import children_of

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
READY_S = 90.0
STOP_S = 45.0
_STUB = "triton_python_backend_stub"
_ENGINE = {
    "GLM_ENGINE_THREADS": "1",
    "GLM_ENGINE_VISION_THREADS": "1",
    "GLM_ENGINE_CONTEXT_TOKENS": "1024",
}
_GATEWAY = {  # one address asks for everybody
    "GLM_GATEWAY_WORKERS": "2",
    "GLM_GATEWAY_REQUESTS_PER_MINUTE": "1000000",
    "GLM_GATEWAY_ADDRESS_REQUESTS_PER_MINUTE": "1000000",
    "GLM_GATEWAY_IMAGE_TOKENS_PER_MINUTE": "1000000000",
    "GLM_GATEWAY_ADDRESS_IMAGE_TOKENS_PER_MINUTE": "1000000000",
    "GLM_GATEWAY_CONCURRENT_REQUESTS": "1000",
    "GLM_GATEWAY_ADDRESS_CONCURRENT_REQUESTS": "1000",
}
_ENGINE_GAUGES = ("glm_requests_running", "glm_requests_waiting", "glm_kv_tokens")
_GATEWAY_GAUGES = ("running_requests", "waiting_requests", "admitted_tokens")


class Role(StrEnum):
    """What a process of ours is."""

    SUPERVISOR = "supervisor"
    TRITON = "tritonserver"
    STUB = "stub of glm4v"
    WHOLE_STUB = "stub of glm4v_whole"
    MASTER = "gunicorn master"
    WORKER = "gateway worker"
    REDIS = "redis"
    NGINX = "nginx"


class Service:
    """`serve-triton` on a build and a gateway before it, from `start` to `stop`; one thread starts and stops them."""

    def __init__(self, folder: Path, build: Path, redis_url: str = "", **settings: str) -> None:
        """`settings` are more of the gateway's, by their names without GLM_GATEWAY_."""
        self._folder, self._build = folder, build
        self._http, self.grpc_port, self._metrics, self.web_port = (free_port() for _ in range(4))
        self.triton_url = f"grpc://{HOST}:{self.grpc_port}"
        """Where the gateway looks for Triton; may be set to a proxy before the start."""
        self.url = f"http://{HOST}:{self.web_port}"
        self.temporary = folder / "tmp"
        self._settings = {f"GLM_GATEWAY_{name}": value for name, value in settings.items()}
        self._settings["GLM_GATEWAY_REDIS_URL"] = redis_url
        self._triton: Child | None = None
        self._gateway: GatewayServer | None = None
        self._log = (folder / "service.log").open("ab")

    def start(self) -> None:
        self.temporary.mkdir(exist_ok=True)
        subprocess.run(
            [ROOT / "deploy" / "docker" / "link-wheel-server", self._folder / "server"],
            env=_python_first(),
            check=True,
            timeout=60,
        )
        self.start_triton()
        self.start_gateway()

    def start_triton(self) -> None:
        """The container's entry point, as its runtime starts it; what an earlier one left ends first."""
        if self._triton is not None:
            self._triton.stop(STOP_S)
        environment = {
            **of_the_wheel_environment(self._folder),
            **_ENGINE,
            "PATH": f"{self._folder / 'server' / 'bin'}:{_python_first()['PATH']}",
            "TRITON_BACKENDS": str(self._folder / "server" / "backends"),
            "TRITON_EXIT_TIMEOUT_S": "10",
            "TMPDIR": str(self.temporary),
        }
        ports = {"http": self._http, "grpc": self.grpc_port, "metrics": self._metrics}
        options = [f"--{name}-port={port}" for name, port in ports.items()]
        options += [f"--{name}-address={HOST}" for name in ports]
        command = [sys.executable, "-m", "launcher.serve_triton", str(self._build), *options]
        self._triton = Child("serve-triton", [*command, "--allow-gpu-metrics=false"], environment, ROOT, self._log)

    def start_gateway(self) -> None:
        """A gateway on the same port; what an earlier one left ends first."""
        if self._gateway is not None:
            self._gateway.stop()
        self._gateway = GatewayServer(self._build, self.triton_url, HOST, self.web_port, self._log)
        with _environment({**_GATEWAY, "TMPDIR": str(self.temporary), **self._settings}):
            self._gateway.start()

    def revive(self) -> list[str]:
        """Starts again what has ended, as systemd or a container runtime would; the names of that."""
        revived = []
        if self._triton is not None and self._triton.exit_code() is not None:
            revived.append(f"serve-triton (it ended with {self._triton.exit_code()})")
            self.start_triton()
        if self._gateway is not None and self._gateway.exit_code() is not None:
            revived.append(f"gateway (it ended with {self._gateway.exit_code()})")
            self.start_gateway()
        return revived

    def is_ready(self) -> bool:
        reply = get(HOST, self.web_port, "/health/ready", 10.0)
        return reply is not None and reply.status == 200

    def wait_ready(self) -> None:
        assert eventually(self.is_ready, READY_S), f"see {self._log.name}"

    def stop(self) -> None:
        if self._gateway is not None:
            self._gateway.stop()
        if self._triton is not None:
            self._triton.stop(STOP_S)
        self._log.close()

    def pids(self, role: Role) -> list[int]:
        """The processes of a role that run now, oldest first."""
        if role in (Role.MASTER, Role.WORKER):
            master = self._master()
            return _existing(master) if role is Role.MASTER else _children(master)
        supervisor = self._triton.pid if self._triton else None
        if role is Role.SUPERVISOR:
            return _existing(supervisor)
        servers = [pid for pid in _children(supervisor) if _name(pid) == "tritonserver"]
        if role is Role.TRITON:
            return servers
        model = role.removeprefix("stub of ")
        return [pid for server in servers for pid in _children(server) if _is_stub_of(pid, model)]

    def orphans(self) -> list[str]:
        """The processes that still have its folder for temporary files, and how each was started."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"TMPDIR={self.temporary}\0".encode() in (process / "environ").read_bytes():
                    words = " ".join(words_of(int(process.name)))
                    found.append(f"process {process.name}: {words[:100]}")
        return found

    def _master(self) -> int | None:
        return self._gateway.pid if self._gateway else None

    def levels(self) -> dict[str, float]:
        """What it holds now: threads and files by role, requests and KV by the metrics."""
        found: dict[str, float] = {}
        for role in (Role.SUPERVISOR, Role.TRITON, Role.STUB, Role.WHOLE_STUB, Role.MASTER, Role.WORKER):
            pids = self.pids(role)
            found[f"{role} processes"] = len(pids)
            found[f"{role} threads"] = sum(_count(pid, "task") for pid in pids)
            found[f"{role} files"] = sum(_count(pid, "fd") for pid in pids)
        engine, gateway = _page(f"http://{HOST}:{self._metrics}/metrics"), _page(f"{self.url}/metrics")
        found |= {name: _value(engine, name) for name in _ENGINE_GAUGES}
        found |= {f"glm_gateway_{name}": _value(gateway, f"glm_gateway_{name}") for name in _GATEWAY_GAUGES}
        found["shared memory regions"] = len(self.regions())
        found["folders of its own"] = len(self.folders())
        return found

    def folders(self) -> list[str]:
        """What it has in its temporary folder."""
        return sorted(path.name for path in self.temporary.glob("glm-*"))

    def regions(self) -> set[str]:
        """Shared memory that its processes have mapped."""
        found: set[str] = set()
        for role in (Role.TRITON, Role.STUB, Role.WHOLE_STUB):
            for pid in self.pids(role):
                with suppress(OSError):
                    found |= set(re.findall(r"/dev/shm/(\S+)", Path(f"/proc/{pid}/maps").read_text("utf-8")))
        return found


class LaunchedService(Service):
    """The same under `make serve`'s launcher, which owns Triton and the gateway; it is the supervisor here."""

    def start(self) -> None:
        self.temporary.mkdir(exist_ok=True)
        self._launch()

    def revive(self) -> list[str]:
        """What a killed launcher left is for the next one to end."""
        if self._triton is None or self._triton.exit_code() is None:
            return []
        code = self._triton.exit_code()
        self._launch()
        return [f"launcher (it ended with {code})"]

    def _launch(self) -> None:
        ports = {"PORT": self.web_port, "TRITON_HTTP_PORT": self._http, "TRITON_GRPC_PORT": self.grpc_port}
        environment = {
            **os.environ,
            **_ENGINE,
            **_GATEWAY,
            **self._settings,
            **{name: str(port) for name, port in ports.items()},
            "TRITON_METRICS_PORT": str(self._metrics),
            "BUILD": str(self._build),
            "TMPDIR": str(self.temporary),
        }
        self._triton = Child("launcher", [sys.executable, "-m", "launcher"], environment, ROOT, self._log)

    def _master(self) -> int | None:
        launcher = self._triton.pid if self._triton else None
        return next((pid for pid in _children(launcher) if "gunicorn" in words_of(pid)), None)


@contextmanager
def running_service(folder: Path, build: Path, **settings: str) -> Iterator[Service]:
    """A service that is ready."""
    service = Service(folder, build, **settings)
    try:
        service.start()
        service.wait_ready()
        yield service
    finally:
        service.stop()


def send(pid: int, number: signal.Signals) -> bool:
    """Whether the process was there to be signalled."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def of_the_wheel_environment(folder: Path) -> dict[str, str]:
    """Made once a folder: the variables with which the wheel's server runs."""
    wheel = folder / "wheel"
    if wheel.exists():
        return dict(_WHEEL[wheel])
    wheel.mkdir()
    _WHEEL[wheel] = of_the_wheel(wheel).environment
    return dict(_WHEEL[wheel])


_WHEEL: dict[Path, dict[str, str]] = {}


def _python_first() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _existing(pid: int | None) -> list[int]:
    return [pid] if pid is not None and _name(pid) else []


def _children(pid: int | None) -> list[int]:
    """The direct children that have not ended."""
    return sorted(child for child in children_of(pid) if _name(child)) if pid is not None else []


def _name(pid: int) -> str:
    """A process's program; nothing for one that has ended."""
    return Path("".join(words_of(pid)[:1])).name


def _is_stub_of(pid: int, model: str) -> bool:
    return _name(pid) == _STUB and any(f"/{model}/" in word for word in words_of(pid)[1:])


def _count(pid: int, what: str) -> int:
    with suppress(OSError):
        return len(list(Path(f"/proc/{pid}/{what}").iterdir()))
    return 0


def _page(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return str(reply.read().decode())
    except OSError:
        return ""


def _value(page: str, name: str) -> float:
    """A metric's value; -1 where it is not shown."""
    found = re.search(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", page, re.MULTILINE)
    return float(found[1]) if found else -1.0


def settle(service: Service, within_s: float = 20.0) -> bool:
    """Whether nothing runs or waits any more in that time."""

    def is_idle() -> bool:
        levels = service.levels()
        return all(levels[name] == 0 for name in _ENGINE_GAUGES[:2])

    give_up = time.monotonic() + within_s
    while not is_idle():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.2)
    return True
