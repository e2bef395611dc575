"""Tritons, gateways and nginx on this machine, each a process that can be killed and replaced."""

from __future__ import annotations

import os
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

from bench.checkpoints.builds import CACHE
from bench.ports import free_port
from bench.servers.nginx import nginx_command
from bench.servers.processes import HOST, engine_variables, program
from glmserve.build.manifest import REPOSITORY_FOLDER
from launcher.gateway_server import GatewayServer
from launcher.triton_server import TritonServer

SLOTS = 8
"""Of each Triton; few, so that answers wait for a slot and not for this machine's processors."""
_START_S = 180.0
UNLIMITED = {  # one address asks for everybody
    "GLM_GATEWAY_REQUESTS_PER_MINUTE": "1000000",
    "GLM_GATEWAY_ADDRESS_REQUESTS_PER_MINUTE": "1000000",
    "GLM_GATEWAY_IMAGE_TOKENS_PER_MINUTE": "1000000000",
    "GLM_GATEWAY_ADDRESS_IMAGE_TOKENS_PER_MINUTE": "1000000000",
    "GLM_GATEWAY_CONCURRENT_REQUESTS": "1000",
    "GLM_GATEWAY_ADDRESS_CONCURRENT_REQUESTS": "1000",
}
_MANY = UNLIMITED | {
    "GLM_ENGINE_SLOTS": str(SLOTS),
    "GLM_ENGINE_WARM_ROWS": "0",
    "GLM_ENGINE_IMAGE_CACHE_MIB": "16",
    "GLM_ENGINE_CONTEXT_TOKENS": "1024",
    "GLM_GATEWAY_TRUSTED_PROXIES": "1",
}
PATIENT = {  # a measurement on a busy machine must be slow, not failed
    "GLM_GATEWAY_DEADLINE_S": "600",
    "GLM_GATEWAY_RESPONSE_TIMEOUT_S": "120",
    "GLM_GATEWAY_CANARY_TIMEOUT_S": "120",
}
_AnyServer = TypeVar("_AnyServer", TritonServer, GatewayServer)


class Fleet:
    """`tritons` and `gateways` by number, all with the same variables; each method waits until it is done."""

    def __init__(self, folder: Path, build: Path, tritons: int, gateways: int, variables: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._variables = dict(variables)
        self._triton_ports = [(free_port(), free_port(), free_port()) for _ in range(tritons)]
        self.gateway_ports = [free_port() for _ in range(gateways)]
        self._logs = [(folder / f"gateway-{number}.log").open("wb") for number in range(gateways)]
        self.tritons = [self._triton(number, build) for number in range(tritons)]
        self.gateways = [self._gateway(number, build) for number in range(gateways)]
        self.url = self.gateways[0].url

    def start(self) -> None:
        servers: list[TritonServer | GatewayServer] = [*self.tritons, *self.gateways]
        for server in servers:
            self._start(server)
        for server in servers:
            server.wait_ready(_START_S)

    def stop(self) -> None:
        with ThreadPoolExecutor(len(self.gateways) + len(self.tritons)) as pool:
            for stop in (*(one.stop for one in self.gateways), *(one.stop for one in self.tritons)):
                pool.submit(stop)
        for log in self._logs:
            log.close()

    def revive_triton(self, number: int, build: Path) -> None:
        """Stops it, after its answers, if it still runs, and starts it on a build."""
        self.tritons[number] = self._replaced(self.tritons[number], self._triton(number, build))

    def revive_gateway(self, number: int, build: Path) -> None:
        self.gateways[number] = self._replaced(self.gateways[number], self._gateway(number, build))

    def gateway_logs(self) -> str:
        """What the gateways have logged so far."""
        return "".join(Path(log.name).read_text("utf-8") for log in self._logs)

    def tokens(self, number: int) -> float:
        """Tokens that a Triton has generated, as of a quarter of a second ago; 0 until it opens the port of its
        metrics, which it opens last."""
        try:
            with urllib.request.urlopen(self.tritons[number].metrics_url, timeout=5) as reply:
                found = re.search(r"^glm_generated_tokens_total ([0-9.e+]+)$", reply.read().decode(), re.MULTILINE)
        except urllib.error.URLError:
            return 0.0
        return float(found.group(1)) if found else 0.0

    def _triton(self, number: int, build: Path) -> TritonServer:
        ports = self._triton_ports[number]
        return TritonServer(build / REPOSITORY_FOLDER, *ports, HOST, _START_S, require_certificate=False)

    def _gateway(self, number: int, build: Path) -> GatewayServer:
        urls = ",".join(f"grpc://{HOST}:{grpc}" for _, grpc, _ in self._triton_ports)
        return GatewayServer(build, urls, HOST, self.gateway_ports[number], self._logs[number])

    def _start(self, server: TritonServer | GatewayServer) -> None:
        with patch.dict(os.environ, self._variables):
            server.start()

    def _replaced(self, old: _AnyServer, new: _AnyServer) -> _AnyServer:
        old.stop()
        self._start(new)
        new.wait_ready(_START_S)
        return new


@contextmanager
def fleet_of(folder: Path, build: Path, tritons: int, gateways: int) -> Iterator[Fleet]:
    """A running fleet behind nginx, whose logs and configuration lie in `folder`."""
    with running(Fleet(folder, build, tritons, gateways, _MANY)) as fleet, _nginx(folder, fleet.gateway_ports) as url:
        fleet.url = url
        yield fleet


@contextmanager
def service_on(build: Path, threads: int) -> Iterator[str]:
    """The address of our service, one Triton and one gateway, once it answers."""
    variables = engine_variables(threads) | PATIENT
    with running(Fleet(CACHE / f"service-{build.name}", build, 1, 1, variables)) as fleet:
        yield fleet.url


def kill(server: TritonServer | GatewayServer) -> None:
    """SIGKILL for it and all its processes."""
    assert server.pid is not None
    os.killpg(server.pid, signal.SIGKILL)


@contextmanager
def running(fleet: Fleet) -> Iterator[Fleet]:
    """Started when the block begins, stopped when it ends."""
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.stop()


@contextmanager
def _nginx(folder: Path, gateway_ports: list[int]) -> Iterator[str]:
    """The address of nginx with the configuration that containers get, and these gateways."""
    port = free_port()
    command = nginx_command(folder, port, gateway_ports)
    with program(command, port, folder / "nginx.log", "/health/live") as server:
        yield server.url
