"""Where tritonserver lies on this machine: in the nvidia-pytriton wheel, or in a container's image."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from glmserve.system import malloc

_BACKENDS_VARIABLE = "TRITON_BACKENDS"


class NotInstalled(Exception):
    """There is no tritonserver that could be started; the message says what is missing."""


@dataclass(frozen=True)
class Installation:
    """A tritonserver; without `backends` it uses its own folder of them."""

    program: str
    backends: Path | None
    environment: dict[str, str]


def of_the_wheel(runtime: Path) -> Installation:
    """The server of the nvidia-pytriton wheel, whose stubs run this very Python with its packages.

    Writes a folder of backends into `runtime`. Raises NotInstalled.
    """
    wheel = _wheel_folder()
    environment = dict(os.environ)
    libraries = [sysconfig.get_config_var("LIBDIR"), environment.get("LD_LIBRARY_PATH")]
    environment["LD_LIBRARY_PATH"] = ":".join(filter(None, libraries))
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment.get('PATH', '')}"
    environment.setdefault("OMP_NUM_THREADS", "1")  # onnxruntime has its own threads
    environment |= malloc.variables(environment)
    return Installation(str(wheel / "bin" / "tritonserver"), _link_backends(wheel, runtime), environment)


def of_the_image(_runtime: Path) -> Installation:
    """The server on PATH, with the backends that TRITON_BACKENDS names or else its own. Raises NotInstalled."""
    program = shutil.which("tritonserver")
    if program is None:
        raise NotInstalled("There is no tritonserver on PATH.")
    backends = os.environ.get(_BACKENDS_VARIABLE)
    return Installation(program, Path(backends) if backends else None, {**os.environ, **malloc.variables(os.environ)})


def _wheel_folder() -> Path:
    spec = importlib.util.find_spec("pytriton")  # finds without importing, which takes seconds
    if spec is None or not spec.submodule_search_locations:
        raise NotInstalled("The package nvidia-pytriton, which contains tritonserver, is not installed.")
    return Path(next(iter(spec.submodule_search_locations))) / "tritonserver"


def _link_backends(wheel: Path, runtime: Path) -> Path:
    """A backend folder in which the stub of this Python lies beside the library, where Triton looks for it."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = wheel / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise NotInstalled(f"The nvidia-pytriton wheel has no stub for Python {version}: use Python 3.11 or 3.12.")
    library = f"libpython{version}.so.1.0"
    beside = Path(sysconfig.get_config_var("LIBDIR")) / library
    if not beside.exists() and ctypes.util.find_library(f"python{version}") is None:
        raise NotInstalled(
            f"Triton's stub needs {library}, which this Python lacks: install it (apt-get install libpython{version}), "
            "or make .venv with a Python that was built with --enable-shared."
        )
    backends = runtime / "backends"
    (backends / "python").mkdir(parents=True)
    for path in [*(wheel / "backends" / "python").glob("*.*"), stub]:
        (backends / "python" / path.name).symlink_to(path)
    return backends
