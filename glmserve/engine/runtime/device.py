"""What differs between the processor and a CUDA device: providers, buffers, copies of KV, and how much memory there is.

The CUDA half needs onnxruntime-gpu, which brings the CUDA runtime that it calls.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort

from glmserve.engine.runtime.cuda_runtime import Gpu
from glmserve.engine.runtime.gpu_support import check_kernels
from glmserve.engine.runtime.memory import Block, Memory
from glmserve.engine.runtime.memory import DeviceName as DeviceName
from glmserve.errors import BadArtifact
from glmserve.system import memory

_NAN_BYTE = 0xFF  # all ones is a NaN in every floating type


class Device(Memory, Protocol):
    """Where onnxruntime's graphs run."""

    def providers(self, captures_graphs: bool) -> list[Any]:
        """Execution providers for a session, as onnxruntime takes them."""
        ...


_EXACT_FLAGS = frozenset(("avx512_vnni", "avx_vnni", "amx_int8"))


def multiply_bytes_exactly(options: ort.SessionOptions, cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Keeps products of bytes from overflowing on an x86 processor without VNNI and AMX, which adds pairs of them up in
    16 bits: there onnxruntime takes the sign off the weights first, and works slower. Others have no need of it."""
    with cpuinfo.open(encoding="utf-8") as file:  # the first processor's: a large machine has hundreds
        flags = next((line for line in file if line.startswith("flags")), None)
    if flags is not None and _EXACT_FLAGS.isdisjoint(flags.split()):
        options.add_session_config_entry("session.x64quantprecision", "1")


def open_device(name: DeviceName, number: int = 0) -> Device:
    """The device of that name; raises BadArtifact when the installed onnxruntime has no provider for it."""
    return Cuda(number) if name == "cuda" else Host()


class _HostBlock:
    """In small pages, which the kernel gives as they are first written. Of large ones the first token of each KV row
    would take hundreds, one a head and layer, and a quarter of a second to fill them with zeros."""

    def __init__(self, size_bytes: int) -> None:
        memory = mmap.mmap(-1, size_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):  # a kernel without large pages
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        self.bytes = np.frombuffer(memory, np.uint8)
        self.address: int = self.bytes.ctypes.data


class Host:
    """The processor."""

    name: DeviceName = "cpu"
    number = 0

    def __init__(self) -> None:
        self.capturing = threading.Lock()

    def use(self) -> None:
        pass

    def providers(self, captures_graphs: bool) -> list[Any]:
        return ["CPUExecutionProvider"]

    def allocate(self, size_bytes: int) -> Block:
        return _HostBlock(size_bytes)

    def fill_with_nan(self, block: Block, size_bytes: int) -> None:
        ctypes.memset(block.address, _NAN_BYTE, size_bytes)

    def copy(self, source: int, target: int, pitches_bytes: tuple[int, int], width_bytes: int, count: int) -> None:
        from_bytes, to_bytes = pitches_bytes
        for index in range(count):
            ctypes.memmove(target + index * to_bytes, source + index * from_bytes, width_bytes)

    def wait(self) -> None:
        pass

    def total_memory_bytes(self) -> int:
        return memory.total_memory_bytes()


class Cuda(Gpu):
    """One NVIDIA GPU, through onnxruntime's CUDA provider; it needs CUDA's libraries, and no cuDNN."""

    name: DeviceName = "cuda"

    def __init__(self, number: int) -> None:
        if "CUDAExecutionProvider" not in ort.get_available_providers():
            raise BadArtifact("This onnxruntime has no CUDA provider: install requirements/gpu.txt.")
        ort.preload_dlls(cudnn=False)
        super().__init__(number)
        check_kernels(self.compute_capability(), number)
        try:
            ort.OrtValue.ortvalue_from_shape_and_type([1], np.uint8, "cuda", number)
        except RuntimeError as error:  # onnxruntime has said which library it misses
            raise BadArtifact("onnxruntime's CUDA provider does not load: install requirements/gpu.txt.") from error

    def providers(self, captures_graphs: bool) -> list[Any]:
        options = {
            "device_id": self.number,
            "arena_extend_strategy": "kSameAsRequested",
            "enable_cuda_graph": "1" if captures_graphs else "0",
            "use_tf32": "0",
        }
        return [("CUDAExecutionProvider", options), "CPUExecutionProvider"]
