"""Builds the libraries of a CUDA installation that has no GPU, so that onnxruntime's CUDA provider loads and works.

The runtime is `fake_cudart.c`; of the others every function that the provider calls answers with success and does
nothing. There is no cuDNN: what needs it fails, as it does where only the provider's own dependencies are installed.
"""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path

SITE = Path(__file__).parents[2] / ".cuda"
"""Where `make cuda-rehearsal` puts onnxruntime-gpu and, in `headers`, CUDA's."""
PROVIDER = SITE / "onnxruntime/capi/libonnxruntime_providers_cuda.so"
_HEADERS = SITE / "headers/nvidia/cu13/include"
_RUNTIME = Path(__file__).with_name("fake_cudart.c")
_DRIVER = "libcuda.so.1"
_WANTED = re.compile(r" U (?P<name>\w+)@(?P<library>lib(cudart|cublas|cublasLt|curand)\.so\.\d+)$")


def build_libraries(folder: Path, devices: int = 1, *options: str) -> None:
    """Writes the libraries of a machine with so many devices into a folder that exists; raises CalledProcessError where
    the compiler fails. `options` are the compiler's, such as `-DCAPABILITY=100`."""
    wanted = _wanted()
    for library, functions in wanted.items():
        sources = [_stubs(folder / f"{library}.c", functions)]
        if library.startswith("libcudart."):
            sources.append(_RUNTIME)
        _compile(folder / library, sources, f"-DDEVICES={devices}", *options, _version(folder, library))
    _compile(folder / _DRIVER, [_stubs(folder / f"{_DRIVER}.c", ["cuTensorMapEncodeTiled"])])


def _wanted() -> dict[str, list[str]]:
    """The functions that the provider needs of each library."""
    listed = subprocess.run(["nm", "-D", "--undefined-only", PROVIDER], capture_output=True, text=True, check=True)
    functions = defaultdict(list)
    for line in listed.stdout.splitlines():
        if found := _WANTED.search(line):
            functions[found["library"]].append(found["name"])
    functions.setdefault("libcurand.so.10", [])  # linked, and asked for nothing
    return functions


def _stubs(path: Path, functions: list[str]) -> Path:
    """A source in which each function does nothing and succeeds, unless another source has it."""
    path.write_text("".join(f"__attribute__((weak)) long {name}() {{ return 0; }}\n" for name in functions), "ascii")
    return path


def _version(folder: Path, library: str) -> str:
    """The linker's option that gives functions the version which the provider asks for."""
    versions = folder / f"{library}.map"
    versions.write_text(f"{library} {{ global: *; }};\n", "ascii")
    return f"-Wl,--version-script={versions}"


def _compile(library: Path, sources: list[Path], *options: str) -> None:
    command = ["gcc", "-shared", "-fPIC", "-O1", "-w", f"-I{_HEADERS}", "-o", library, *sources]
    subprocess.run([*command, f"-Wl,-soname,{library.name}", *options], check=True)
