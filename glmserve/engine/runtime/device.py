"""What differs between the processor and a CUDA device: providers, buffers, copies of KV, and how much memory there is.

The CUDA half needs onnxruntime-gpu, which brings the CUDA runtime that it calls.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import onnxruntime as ort

from glmserve.errors import BadArtifact
from glmserve.system import memory

DeviceName = Literal["cpu", "cuda"]
_NAN_BYTE = 0xFF  # all ones is a NaN in every floating type


class Block(Protocol):
    """A stretch of device memory; alive as long as this object."""

    address: int


class Device(Protocol):
    """Where graphs run. Arrays go in and out as numpy; KV stays."""

    name: DeviceName
    number: int
    capturing: threading.Lock
    """Held while a CUDA graph is captured, and by threads that run anything beside the decoder: an allocation on any
    thread ends a capture."""

    def use(self) -> None:
        """Makes it the one that this thread's calls mean."""
        ...

    def providers(self, captures_graphs: bool) -> list[Any]:
        """Execution providers for a session, as onnxruntime takes them."""
        ...

    def allocate(self, size_bytes: int) -> Block: ...

    def fill_with_nan(self, block: Block, size_bytes: int) -> None: ...

    def copy(self, source: int, target: int, pitch_bytes: int, width_bytes: int, count: int) -> None:
        """Copies `count` pieces of `width_bytes`, `pitch_bytes` apart, between two addresses; done after `wait`."""
        ...

    def wait(self) -> None:
        """Until every copy is done."""
        ...

    def total_memory_bytes(self) -> int:
        """What this process may plan with: the device's memory, or this container's share of the machine's."""
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

    def copy(self, source: int, target: int, pitch_bytes: int, width_bytes: int, count: int) -> None:
        for index in range(count):
            ctypes.memmove(target + index * pitch_bytes, source + index * pitch_bytes, width_bytes)

    def wait(self) -> None:
        pass

    def total_memory_bytes(self) -> int:
        return memory.total_memory_bytes()


class _CudaBlock:
    """Straight from CUDA: onnxruntime's own allocator takes powers of two, for KV up to twice what was planned."""

    def __init__(self, address: int, give_back: Callable[[ctypes.c_void_p], int]) -> None:
        self.address = address
        weakref.finalize(self, give_back, ctypes.c_void_p(address))


class Cuda:
    """One NVIDIA GPU, through onnxruntime's CUDA provider; it needs CUDA's libraries, and no cuDNN."""

    name: DeviceName = "cuda"

    def __init__(self, number: int) -> None:
        if "CUDAExecutionProvider" not in ort.get_available_providers():
            raise BadArtifact("This onnxruntime has no CUDA provider: install requirements/gpu.txt.")
        self.number = number
        self.capturing = threading.Lock()
        ort.preload_dlls(cudnn=False)
        self._runtime = _load_runtime()
        self._runtime.cudaGetErrorString.restype = ctypes.c_char_p
        try:
            self.use()
        except RuntimeError as error:
            remedy = "See what nvidia-smi says, and GLM_ENGINE_DEVICE_NUMBER."
            raise BadArtifact(f"GPU {number} cannot be used: {error}. {remedy}") from error
        try:
            ort.OrtValue.ortvalue_from_shape_and_type([1], np.uint8, "cuda", number)
        except RuntimeError as error:  # onnxruntime has said which library it misses
            raise BadArtifact("onnxruntime's CUDA provider does not load: install requirements/gpu.txt.") from error

    def use(self) -> None:
        self._check("choosing it", self._runtime.cudaSetDevice(ctypes.c_int(self.number)))

    def providers(self, captures_graphs: bool) -> list[Any]:
        options = {
            "device_id": self.number,
            "arena_extend_strategy": "kSameAsRequested",
            "enable_cuda_graph": "1" if captures_graphs else "0",
            "use_tf32": "0",
        }
        return [("CUDAExecutionProvider", options), "CPUExecutionProvider"]

    def allocate(self, size_bytes: int) -> Block:
        self.use()
        address = ctypes.c_void_p()
        call = self._runtime.cudaMalloc(ctypes.byref(address), ctypes.c_size_t(size_bytes))
        self._check(f"allocating {size_bytes:,} bytes", call)
        assert address.value is not None
        return _CudaBlock(address.value, self._runtime.cudaFree)

    def fill_with_nan(self, block: Block, size_bytes: int) -> None:
        self.use()
        call = self._runtime.cudaMemset(
            ctypes.c_void_p(block.address), ctypes.c_int(_NAN_BYTE), ctypes.c_size_t(size_bytes)
        )
        self._check("filling memory", call)
        self.wait()

    def copy(self, source: int, target: int, pitch_bytes: int, width_bytes: int, count: int) -> None:
        pitch = ctypes.c_size_t(pitch_bytes)
        on_device = ctypes.c_int(3)  # cudaMemcpyDeviceToDevice
        call = self._runtime.cudaMemcpy2D(
            ctypes.c_void_p(target),
            pitch,
            ctypes.c_void_p(source),
            pitch,
            ctypes.c_size_t(width_bytes),
            ctypes.c_size_t(count),
            on_device,
        )
        self._check("copying KV", call)

    def wait(self) -> None:
        """Waits for the stream of copies only; an image may be encoded in another stream meanwhile."""
        self._check("waiting", self._runtime.cudaStreamSynchronize(ctypes.c_void_p(None)))

    def total_memory_bytes(self) -> int:
        self.use()
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._check("asking for memory", self._runtime.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)))
        return total.value

    def _check(self, doing: str, code: int) -> None:
        if code != 0:
            words = self._runtime.cudaGetErrorString(ctypes.c_int(code)).decode("ascii", "replace")
            raise RuntimeError(f"CUDA error {code} while {doing}, {words}")


def _load_runtime() -> ctypes.CDLL:
    """The CUDA runtime that onnxruntime has already loaded."""
    load: Callable[[str], ctypes.CDLL] = ctypes.CDLL
    for name in ("libcudart.so.13", "libcudart.so.12"):
        try:
            return load(name)
        except OSError:
            continue
    raise BadArtifact("The CUDA runtime (libcudart) cannot be loaded: install requirements/gpu.txt.")
