"""Redis and nginx beside the service, each a process that a fault may end and that is started again."""

from __future__ import annotations

import os
import shutil
import socket
from abc import ABC, abstractmethod
from pathlib import Path

from eventually import eventually

from bench.ports import free_port
from bench.servers.nginx import nginx_command
from launcher.children import Child

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
_UP_S, _STOP_S = 15.0, 5.0


class Sidecar(ABC):
    """A program on one port of loopback."""

    name: str
    program: str

    def __init__(self, folder: Path) -> None:
        self._folder = folder / self.name
        self._folder.mkdir()
        self._port = free_port()
        self._child: Child | None = None

    @classmethod
    def is_installed(cls) -> bool:
        return shutil.which(cls.program, path=_PATH) is not None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._child = Child(self.name, self._command(), {**os.environ, "PATH": _PATH}, self._folder, log)
        assert eventually(self._listens, _UP_S), f"{self.name} did not start: see {self._folder}"

    def revive(self) -> bool:
        """Whether it had ended, and was started again."""
        if self._child is None or self._child.exit_code() is None:
            return False
        self._child.stop(0)
        self.start()
        return True

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop(_STOP_S)
            self._child = None

    @abstractmethod
    def _command(self) -> list[str]: ...

    def _listens(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), 1):
                return True
        except OSError:
            return False


class Redis(Sidecar):
    """A redis-server that keeps nothing."""

    name, program = "redis", "redis-server"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    def _command(self) -> list[str]:
        return [self.program, "--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--dir", "."]


class Nginx(Sidecar):
    """nginx with the configuration that containers get, before one gateway."""

    name, program = "nginx", "nginx"

    def __init__(self, folder: Path, gateway_port: int) -> None:
        super().__init__(folder)
        self._gateway_port = gateway_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def _command(self) -> list[str]:
        return nginx_command(self._folder, self._port, [self._gateway_port])
