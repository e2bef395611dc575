"""One NVIDIA GPU through the CUDA runtime, called by ctypes: memory, copies, and how much there is."""

from __future__ import annotations

import ctypes
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

from glmserve.engine.runtime.gpu_support import check_driver
from glmserve.engine.runtime.memory import Block, DeviceName
from glmserve.errors import BadArtifact

_NAN_BYTE = 0xFF  # all ones is a NaN in every floating type
_MAJOR, _MINOR = 75, 76  # cudaDevAttrComputeCapabilityMajor, -Minor
_LIBRARIES = ("libcudart.so.13", "libcudart.so.12")


class _CudaBlock:
    """Straight from CUDA: onnxruntime's own allocator takes powers of two, for KV up to twice what was planned."""

    def __init__(self, address: int, give_back: Callable[[ctypes.c_void_p], int]) -> None:
        self.address = address
        weakref.finalize(self, give_back, ctypes.c_void_p(address))


class Gpu:
    """A GPU's `Memory`; raises BadArtifact when the CUDA runtime or that GPU is missing."""

    name: DeviceName = "cuda"

    def __init__(self, number: int) -> None:
        self.number = number
        self.capturing = threading.Lock()
        self._runtime = _load_runtime()
        self._runtime.cudaGetErrorString.restype = ctypes.c_char_p
        check_driver(self._version("Driver"), self._version("Runtime"))
        try:
            self.use()
        except RuntimeError as error:
            remedy = "See what nvidia-smi says, and GLM_ENGINE_DEVICE_NUMBER."
            raise BadArtifact(f"GPU {number} cannot be used: {error}. {remedy}") from error

    def use(self) -> None:
        self._check("choosing it", self._runtime.cudaSetDevice(ctypes.c_int(self.number)))

    def allocate(self, size_bytes: int) -> Block:
        self.use()
        address = ctypes.c_void_p()
        call = self._runtime.cudaMalloc(ctypes.byref(address), ctypes.c_size_t(size_bytes))
        self._check(f"allocating {size_bytes:,} bytes", call)
        assert address.value is not None
        return _CudaBlock(address.value, self._runtime.cudaFree)

    def fill_with_nan(self, block: Block, size_bytes: int) -> None:
        self._fill(block, size_bytes, _NAN_BYTE)

    def fill_with_zeros(self, block: Block, size_bytes: int) -> None:
        self._fill(block, size_bytes, 0)

    def copy(self, source: int, target: int, pitches_bytes: tuple[int, int], width_bytes: int, count: int) -> None:
        on_device = ctypes.c_int(3)  # cudaMemcpyDeviceToDevice
        call = self._runtime.cudaMemcpy2D(
            ctypes.c_void_p(target),
            ctypes.c_size_t(pitches_bytes[1]),
            ctypes.c_void_p(source),
            ctypes.c_size_t(pitches_bytes[0]),
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

    def compute_capability(self) -> str:
        """Such as 8.9."""
        parts = []
        for attribute in (_MAJOR, _MINOR):
            value = ctypes.c_int()
            code = self._runtime.cudaDeviceGetAttribute(
                ctypes.byref(value), ctypes.c_int(attribute), ctypes.c_int(self.number)
            )
            self._check("asking for the compute capability", code)
            parts.append(str(value.value))
        return ".".join(parts)

    def _version(self, of: str) -> int:
        """The CUDA version that the driver supports, or that the runtime is of: 13000 for 13.0; 0 for no driver."""
        version = ctypes.c_int()
        code = getattr(self._runtime, f"cuda{of}GetVersion")(ctypes.byref(version))
        self._check(f"asking for the version of CUDA's {of.lower()}", code)
        return version.value

    def _fill(self, block: Block, size_bytes: int, byte: int) -> None:
        self.use()
        call = self._runtime.cudaMemset(ctypes.c_void_p(block.address), ctypes.c_int(byte), ctypes.c_size_t(size_bytes))
        self._check("filling memory", call)
        self.wait()

    def _check(self, doing: str, code: int) -> None:
        if code != 0:
            words = self._runtime.cudaGetErrorString(ctypes.c_int(code)).decode("ascii", "replace")
            raise RuntimeError(f"CUDA error {code} while {doing}, {words}")


def _load_runtime() -> ctypes.CDLL:
    """The CUDA runtime that is loaded already, or lies among the linker's libraries or this Python's packages."""
    load: Callable[[str], ctypes.CDLL] = ctypes.CDLL
    installed = [path for folder in sys.path for path in Path(folder).glob("nvidia/*/lib/libcudart.so.1[23]")]
    for name in (*_LIBRARIES, *map(str, sorted(installed, reverse=True))):
        try:
            return load(name)
        except OSError:
            continue
    raise BadArtifact("The CUDA runtime (libcudart) cannot be loaded: install requirements/gpu.txt.")
