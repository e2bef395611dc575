"""Which engines `make serve` starts: one for each device, with ports and settings of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from glmserve.system.cpu_count import compute_threads, cores
from launcher.ports import Port
from launcher.settings import WrongSettings

LOOPBACK = "127.0.0.1"
PORTS_APART = 10
"""How much higher each port of the next engine is."""
MOST_DEVICES = 16
_NUMBER = "GLM_ENGINE_DEVICE_NUMBER"
_THREADS, _VISION_THREADS = "GLM_ENGINE_THREADS", "GLM_ENGINE_VISION_THREADS"


@dataclass(frozen=True)
class Engine:
    """One tritonserver to start: its name, its ports on loopback, and what its environment has besides ours."""

    name: str
    http_port: int
    grpc_port: int
    metrics_port: int
    environment: Mapping[str, str]

    @property
    def grpc_url(self) -> str:
        return f"grpc://{LOOPBACK}:{self.grpc_port}"

    @property
    def ports(self) -> list[Port]:
        return [
            Port(LOOPBACK, self.http_port, "TRITON_HTTP_PORT"),
            Port(LOOPBACK, self.grpc_port, "TRITON_GRPC_PORT"),
            Port(LOOPBACK, self.metrics_port, "TRITON_METRICS_PORT"),
        ]


def engines(
    devices: str | None, http_port: int, grpc_port: int, metrics_port: int, environment: Mapping[str, str]
) -> list[Engine]:
    """One engine for each of `devices`, numbers separated by commas; without them one, as the environment has it.

    The processor's threads are shared out among several, where the environment does not say how many each has. Raises
    WrongSettings for devices that are no such list, and for a setting of the environment that they overrule.
    """
    if devices is None:
        return [Engine("Triton", http_port, grpc_port, metrics_port, {})]
    numbers = _numbers(devices)
    if _NUMBER in environment:
        raise WrongSettings(f"{_NUMBER}={environment[_NUMBER]}: DEVICES={devices} chooses the devices; leave one out.")
    threads = {_THREADS: compute_threads(), _VISION_THREADS: cores() // 2} if len(numbers) > 1 else {}
    shared = {name: str(max(1, count // len(numbers))) for name, count in threads.items() if name not in environment}
    made = []
    for i, number in enumerate(numbers):
        http, grpc, metrics = ports = tuple(port + i * PORTS_APART for port in (http_port, grpc_port, metrics_port))
        if max(ports) > 65535:
            raise WrongSettings(
                f"DEVICES={devices}: engine {i} would need port {max(ports)}; choose lower TRITON_*_PORT=."
            )
        made.append(Engine(f"Triton of device {number}", http, grpc, metrics, {**shared, _NUMBER: str(number)}))
    return made


def _numbers(devices: str) -> list[int]:
    parts = [part.strip() for part in devices.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise WrongSettings(f"DEVICES={devices} is no list of devices; give their numbers, as in DEVICES=0,1.")
    numbers = [int(part) for part in parts]
    if len(set(numbers)) < len(numbers):
        raise WrongSettings(f"DEVICES={devices} names a device twice; each has one engine.")
    if len(numbers) > MOST_DEVICES:
        raise WrongSettings(
            f"DEVICES={devices} are {len(numbers)} devices; at most {MOST_DEVICES} have an engine here."
        )
    return numbers
