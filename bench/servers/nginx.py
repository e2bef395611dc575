"""nginx with the configuration that containers get, in front of gateways on this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

PROGRAM = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
"""None where it is not installed."""
_HOST = "127.0.0.1"
_CONFIGURATION = Path(__file__).resolve().parents[2] / "deploy" / "nginx" / "nginx.conf"


def nginx_command(
    folder: Path,
    port: int,
    gateway_ports: Iterable[int],
    of_a_server: str = "max_fails=3 fail_timeout=1s",
    changes: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """The command that serves `port`, once its files are written into `folder`.

    `changes` are texts of the configuration and what takes their place; raises ValueError for one that is not there.
    """
    text = _CONFIGURATION.read_text("utf-8")
    for before, after in changes.items():
        if before not in text:
            raise ValueError(f"{_CONFIGURATION} does not say {before!r}.")
        text = text.replace(before, after)
    (folder / "nginx.conf").write_text(text, "utf-8")
    servers = [f"server {_HOST}:{gateway} {of_a_server};\n" for gateway in gateway_ports]
    (folder / "gateways.conf").write_text("".join(servers), "utf-8")
    (folder / "listen.conf").write_text(f"listen {_HOST}:{port};\n", "utf-8")
    globals_ = f"daemon off; pid {folder}/nginx.pid;" + (" user root;" if os.getuid() == 0 else "")
    return [PROGRAM or "nginx", "-e", "stderr", "-p", f"{folder}/", "-c", f"{folder}/nginx.conf", "-g", globals_]
