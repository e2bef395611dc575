"""Several Tritons, several gateways and nginx on this machine, each a process that can be killed and replaced."""

from __future__ import annotations

import os
import re
import shutil
import signal
import urllib.error
import urllib.request
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bench.servers.ports import free_port
from bench.servers.processes import environment, wait_until_it_answers
from glmserve.build.manifest import REPOSITORY_FOLDER
from launcher.children import Child
from launcher.gateway_server import GatewayServer
from launcher.triton_server import TritonServer

SLOTS = 8
"""Of each Triton; few, so that answers wait for a slot and not for this machine's processors."""
_HOST = "127.0.0.1"
_START_S = 90.0
_NGINX = Path(__file__).resolve().parents[2] / "deploy" / "nginx" / "nginx.conf"
_ENGINE = {
    "GLM_ENGINE_SLOTS": str(SLOTS),
    "GLM_ENGINE_WARM_ROWS": "0",
    "GLM_ENGINE_IMAGE_CACHE_MIB": "16",
    "GLM_ENGINE_CONTEXT_TOKENS": "1024",
}
_GATEWAY = {  # one client, this machine, asks for everybody
    "GLM_GATEWAY_TRUSTED_PROXIES": "1",
    "GLM_GATEWAY_REQUESTS_PER_MINUTE": "1000000",
    "GLM_GATEWAY_ADDRESS_REQUESTS_PER_MINUTE": "1000000",
    "GLM_GATEWAY_IMAGE_TOKENS_PER_MINUTE": "1000000000",
    "GLM_GATEWAY_CONCURRENT_REQUESTS": "1000",
}


class Fleet:
    """`tritons` and `gateways` by number; the methods wait until what they name is so."""

    def __init__(self, folder: Path, build: Path, tritons: int, gateways: int) -> None:
        self._folder = folder
        self._triton_ports = [(free_port(), free_port(), free_port()) for _ in range(tritons)]
        self._gateway_ports = [free_port() for _ in range(gateways)]
        self._logs = [(folder / f"gateway-{number}.log").open("ab") for number in range(gateways)]
        self._nginx: Child | None = None
        self._nginx_port = free_port()
        self.url = f"http://{_HOST}:{self._nginx_port}"
        self.tritons = [self._triton(number, build) for number in range(tritons)]
        self.gateways = [self._gateway(number, build) for number in range(gateways)]

    def start(self) -> None:
        for triton in self.tritons:
            _start(triton)
        for gateway in self.gateways:
            _start(gateway)
        for triton in self.tritons:
            triton.wait_ready(_START_S)
        for gateway in self.gateways:
            gateway.wait_ready(_START_S)
        self._start_nginx()

    def stop(self) -> None:
        if self._nginx is not None:
            self._nginx.stop(5)
        with ThreadPoolExecutor(len(self.gateways) + len(self.tritons)) as pool:
            for gateway in self.gateways:
                pool.submit(gateway.stop)
            for triton in self.tritons:
                pool.submit(triton.stop)
        for log in self._logs:
            log.close()

    def kill_triton(self, number: int) -> None:
        """SIGKILL for it and its models."""
        _kill(self.tritons[number])

    def kill_gateway(self, number: int) -> None:
        _kill(self.gateways[number])

    def revive_triton(self, number: int, build: Path) -> None:
        """Ends what is left of it, after its answers, and starts it on a build."""
        self.tritons[number].stop()
        self.tritons[number] = self._triton(number, build)
        _start(self.tritons[number])
        self.tritons[number].wait_ready(_START_S)

    def revive_gateway(self, number: int, build: Path) -> None:
        self.gateways[number].stop()
        self.gateways[number] = self._gateway(number, build)
        _start(self.gateways[number])
        self.gateways[number].wait_ready(_START_S)

    def gateway_logs(self) -> str:
        """What the gateways have logged so far."""
        return "".join(Path(log.name).read_text("utf-8") for log in self._logs)

    def tokens(self, number: int) -> float:
        """Tokens that a Triton had handed out a quarter of a second ago.

        None yet while the port of its metrics is closed, which it opens last.
        """
        try:
            with urllib.request.urlopen(self.tritons[number].metrics_url, timeout=5) as reply:
                found = re.search(r"^glm_generated_tokens_total ([0-9.e+]+)$", reply.read().decode(), re.MULTILINE)
        except urllib.error.URLError:
            return 0.0
        return float(found.group(1)) if found else 0.0

    def _triton(self, number: int, build: Path) -> TritonServer:
        return TritonServer(build / REPOSITORY_FOLDER, *self._triton_ports[number], _HOST, _START_S)

    def _gateway(self, number: int, build: Path) -> GatewayServer:
        urls = ",".join(f"grpc://{_HOST}:{grpc}" for _, grpc, _ in self._triton_ports)
        return GatewayServer(build, urls, _HOST, self._gateway_ports[number], self._logs[number])

    def _start_nginx(self) -> None:
        """The configuration that containers get, with this fleet's addresses beside it."""
        shutil.copy(_NGINX, self._folder / "nginx.conf")
        servers = [f"server {_HOST}:{port} max_fails=3 fail_timeout=1s;" for port in self._gateway_ports]
        (self._folder / "gateways.conf").write_text("\n".join(servers) + "\n", "utf-8")
        (self._folder / "listen.conf").write_text(f"listen {_HOST}:{self._nginx_port};\n", "utf-8")
        globals_ = f"daemon off; pid {self._folder}/nginx.pid;" + (" user root;" if os.getuid() == 0 else "")
        program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "nginx"
        command = [
            program,
            "-e",
            "stderr",
            "-p",
            f"{self._folder}/",
            "-c",
            f"{self._folder}/nginx.conf",
            "-g",
            globals_,
        ]
        with (self._folder / "nginx.log").open("ab") as log:
            self._nginx = Child("nginx", command, dict(os.environ), self._folder, log)
        wait_until_it_answers(self._nginx, self._nginx_port, "/health/live", self._folder / "nginx.log", _START_S)


@contextmanager
def fleet_of(folder: Path, build: Path, tritons: int, gateways: int) -> Generator[Fleet]:
    """A running fleet whose logs and configuration lie in `folder`."""
    folder.mkdir(exist_ok=True)
    fleet = Fleet(folder, build, tritons, gateways)
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.stop()


def _start(server: TritonServer | GatewayServer) -> None:
    with environment(_ENGINE | _GATEWAY):
        server.start()


def _kill(server: TritonServer | GatewayServer) -> None:
    assert server.pid is not None
    os.killpg(server.pid, signal.SIGKILL)
