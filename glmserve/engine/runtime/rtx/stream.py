"""One stream of a GPU: copies, launches and captured graphs that follow one another."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from typing import Protocol

import numpy as np

from glmserve.engine.runtime.cuda_runtime import Gpu
from glmserve.engine.runtime.memory import Block, Memory

_TO_DEVICE, _TO_HOST = 1, 2  # cudaMemcpyKind
_OF_THIS_THREAD = 1  # cudaStreamCaptureModeThreadLocal: others may allocate meanwhile


class Stream(Protocol):
    """What engines are run on; used by one thread. `handle` is what TensorRT takes."""

    handle: int
    memory: Memory

    def fill_with_zeros(self, block: Block, size_bytes: int) -> None: ...

    def put(self, address: int, array: np.ndarray) -> None:
        """Copies an array to the device; it may be altered after `wait`."""
        ...

    def get(self, array: np.ndarray, address: int) -> None:
        """Copies from the device into an array, which holds it after `wait`."""
        ...

    def wait(self) -> None:
        """Until all is done; raises RuntimeError when something failed on the device."""
        ...

    def capture(self, launch: Callable[[], None]) -> int:
        """What `launch` puts on the stream as a graph, without running it; raises RuntimeError."""
        ...

    def replay(self, graph: int) -> None:
        """Runs a captured graph."""
        ...


class CudaStream:
    """A stream of its own on one GPU."""

    def __init__(self, gpu: RtxGpu) -> None:
        self.memory: Memory = gpu
        self._gpu = gpu
        self._calls = gpu.runtime
        stream = ctypes.c_void_p()
        gpu.use()
        self._check("making a stream", self._calls.cudaStreamCreateWithFlags(ctypes.byref(stream), ctypes.c_uint(1)))
        assert stream.value is not None
        self.handle: int = stream.value
        weakref.finalize(self, self._calls.cudaStreamDestroy, stream)

    def fill_with_zeros(self, block: Block, size_bytes: int) -> None:
        self._gpu.fill_with_zeros(block, size_bytes)

    def put(self, address: int, array: np.ndarray) -> None:
        self._copy(address, array.ctypes.data, array.nbytes, _TO_DEVICE)

    def get(self, array: np.ndarray, address: int) -> None:
        self._copy(array.ctypes.data, address, array.nbytes, _TO_HOST)

    def wait(self) -> None:
        self._check("waiting", self._calls.cudaStreamSynchronize(ctypes.c_void_p(self.handle)))

    def capture(self, launch: Callable[[], None]) -> int:
        stream, graph, ready = ctypes.c_void_p(self.handle), ctypes.c_void_p(), ctypes.c_void_p()
        with self._gpu.capturing:
            self._check("capturing", self._calls.cudaStreamBeginCapture(stream, ctypes.c_int(_OF_THIS_THREAD)))
            try:
                launch()
            finally:
                code = self._calls.cudaStreamEndCapture(stream, ctypes.byref(graph))
            self._check("capturing", code)
            flags = ctypes.c_ulonglong(0)
            self._check("making a graph", self._calls.cudaGraphInstantiate(ctypes.byref(ready), graph, flags))
        self._calls.cudaGraphDestroy(graph)
        assert ready.value is not None
        return ready.value

    def replay(self, graph: int) -> None:
        code = self._calls.cudaGraphLaunch(ctypes.c_void_p(graph), ctypes.c_void_p(self.handle))
        self._check("running a graph", code)

    def _copy(self, target: int, source: int, size: int, kind: int) -> None:
        if size:
            code = self._calls.cudaMemcpyAsync(
                ctypes.c_void_p(target),
                ctypes.c_void_p(source),
                ctypes.c_size_t(size),
                ctypes.c_int(kind),
                ctypes.c_void_p(self.handle),
            )
            self._check("copying", code)

    def _check(self, doing: str, code: int) -> None:
        self._gpu.check(doing, code)


class RtxGpu(Gpu):
    """A GPU that engines of TensorRT for RTX run on."""

    @property
    def runtime(self) -> ctypes.CDLL:
        return self._runtime

    def check(self, doing: str, code: int) -> None:
        """Raises RuntimeError with CUDA's words for what failed."""
        self._check(doing, code)
