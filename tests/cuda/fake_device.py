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
_RUNTIME = [Path(__file__).with_name(name) for name in ("fake_cudart.c", "fake_kernels.c")]
_CUDART, _DRIVER = "libcudart.", "libcuda.so.1"
_PRODUCT = re.compile(r"(?i)cublas(\w*gemm|lt\w*matmul$)")
"""cuBLAS's functions that launch a kernel, which a trace names after them."""
_WANTED = re.compile(r" U (?P<name>\w+)@(?P<library>lib(cudart|cublas|cublasLt|curand)\.so\.\d+)$")


def build_libraries(folder: Path, devices: int = 1, *options: str) -> None:
    """Writes the libraries of a machine with so many devices into a folder that exists; raises CalledProcessError where
    the compiler fails. `options` are the compiler's, such as `-DCAPABILITY=100`."""
    wanted = _wanted()
    for library, functions in sorted(wanted.items(), key=lambda item: not item[0].startswith(_CUDART)):
        stubs, version = _stubs(folder / f"{library}.c", functions), _version(folder, library)
        if library.startswith(_CUDART):
            runtime = folder / library
            _compile(runtime, [stubs, *_RUNTIME], f"-DDEVICES={devices}", *options, version)
        else:
            _compile(folder / library, [stubs, runtime], version)
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
    lines = ["long fake_note(const char *);\n"]
    for name in functions:
        done = f'fake_note("{name}")' if _PRODUCT.match(name) else "0"
        lines.append(f"__attribute__((weak)) long {name}() {{ return {done}; }}\n")
    path.write_text("".join(lines), "ascii")
    return path


def _version(folder: Path, library: str) -> str:
    """The linker's option that gives functions the version which the provider asks for."""
    versions = folder / f"{library}.map"
    versions.write_text(f"{library} {{ global: *; }};\n", "ascii")
    return f"-Wl,--version-script={versions}"


def _compile(library: Path, sources: list[Path], *options: str) -> None:
    command = ["gcc", "-shared", "-fPIC", "-O1", "-w", f"-I{_HEADERS}", "-o", library, *sources]
    subprocess.run([*command, f"-Wl,-soname,{library.name}", *options], check=True)
