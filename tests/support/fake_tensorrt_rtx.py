"""As much of TensorRT for RTX's runtime as the engine calls, on the processor: its "plans" are ONNX graphs.

Addresses are the process's own memory, so what it computes can be compared with ONNX Runtime's decoder. It is as strict
as the library: shapes within the profile, every address set, outputs that lie over their inputs, working memory given.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes  # noqa: F401  (numpy's bfloat16)
import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from export.rtx.profiles import Sizes
from glmserve.engine.runtime.device import Host
from glmserve.engine.runtime.memory import Block, Memory

WORK_BYTES = 4096
_KINDS = {ir.DataType.FLOAT: np.float32, ir.DataType.INT64: np.int64, ir.DataType.INT32: np.int32}
_KINDS |= {ir.DataType.BOOL: np.bool_, ir.DataType.UINT8: np.uint8, ir.DataType.FLOAT16: np.float16}


class FakeStream:
    """Copies at once, and keeps what is captured as a function."""

    handle = 7

    def __init__(self, refuses_captures: bool = False) -> None:
        self.memory: Memory = Host()
        self.captured: list[Callable[[], None]] = []
        self.replays = 0
        self.sent: list[int] = []
        self._refuses = refuses_captures

    def fill_with_zeros(self, block: Block, size_bytes: int) -> None:
        ctypes.memset(block.address, 0, size_bytes)

    def put(self, address: int, array: np.ndarray) -> None:
        self.sent.append(array.nbytes)
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def get(self, array: np.ndarray, address: int) -> None:
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def wait(self) -> None: ...

    def capture(self, launch: Callable[[], None]) -> int:
        if self._refuses:
            raise RuntimeError("CUDA error 900 while capturing")
        Context.recording = []
        try:
            launch()
            runs = Context.recording
        finally:
            Context.recording = None
        self.captured.append(lambda: [run() for run in runs])  # type: ignore[func-returns-value]
        return len(self.captured)

    def replay(self, graph: int) -> None:
        self.replays += 1
        self.captured[graph - 1]()


class FakeTensorRtRtx:
    """Handed out in place of the module."""

    __version__ = "1.7.1.116"
    TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user")
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager", LAZY="lazy")
    CudaGraphStrategy = SimpleNamespace(DISABLED="disabled")

    class ILogger:
        ERROR, WARNING = 1, 2

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes

    nptype = staticmethod(np.dtype)

    def Runtime(self, _logger: Any) -> Any:  # noqa: N802
        return SimpleNamespace(deserialize_cuda_engine=self._engine)

    def _engine(self, plan: bytes) -> Any:
        return Engine(Path(plan.decode()), self._sizes) if plan else None


class Engine:
    """A graph whose path is the plan."""

    def __init__(self, graph: Path, sizes: Sizes) -> None:
        model = ir.load(graph)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self.session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        self.sizes = sizes
        self.values = {str(value.name): value for value in (*model.graph.inputs, *model.graph.outputs)}
        self.takes = [str(value.name) for value in model.graph.inputs]
        self.gives = [str(value.name) for value in model.graph.outputs]
        self.num_io_tensors = len(self.values)

    def get_tensor_name(self, index: int) -> str:
        return list(self.values)[index]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name in self.takes else "output"

    def get_tensor_dtype(self, name: str) -> Any:
        return np.dtype(self.kind(name))

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert profile == 0 and name in self.takes
        return [tuple(self._bound(size, which) for size in self.dims(name)) for which in range(3)]

    def get_aliased_input_tensor(self, name: str) -> str | None:
        return name.replace("_present_", "_past_") if "_present_" in name else None

    def create_runtime_config(self) -> Any:
        config = SimpleNamespace(asked=[], create_runtime_cache=RuntimeCache, cache=None)
        config.set_execution_context_allocation_strategy = config.asked.append
        config.set_runtime_cache = lambda cache: setattr(config, "cache", cache)
        return config

    def create_execution_context(self, config: Any) -> Context:
        assert config.asked == ["user"] and config.cuda_graph_strategy == "disabled" and config.cache is not None
        config.cache.kernels += 1
        return Context(self, config.dynamic_shapes_kernel_specialization_strategy)

    def kind(self, name: str) -> Any:
        return _KINDS[self.values[name].dtype]  # type: ignore[index]

    def dims(self, name: str) -> list[int | str]:
        shape = self.values[name].shape
        assert shape is not None
        return [size if isinstance(size, int) else str(size.value) for size in shape]

    def _bound(self, size: int | str, which: int) -> int:
        return size if isinstance(size, int) else self.sizes[size][which]


class RuntimeCache:
    """Counts contexts instead of keeping kernels; what it reads must be its own."""

    def __init__(self) -> None:
        self.kernels = 0

    def serialize(self) -> bytes:
        return b"kernels"

    def deserialize(self, blob: bytes) -> bool:
        return blob == b"kernels"


class Context:
    """Reads its inputs where they lie when it runs, and writes its outputs where they belong."""

    recording: list[Callable[[], None]] | None = None
    """Runs that are being captured, as they would be put on a stream."""

    def __init__(self, engine: Engine, strategy: str) -> None:
        self._engine, self._strategy = engine, strategy
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._work = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._engine.get_tensor_profile_shape(name, 0)
        assert len(shape) == len(most), (name, shape)
        fits = all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True))
        assert fits, f"{name} {shape} is not between {least} and {most}"
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return bool(address)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        named: dict[str, int] = {}
        for taken in self._engine.takes:
            for word, size in zip(self._engine.dims(taken), self._shapes[taken], strict=True):
                if isinstance(word, str):
                    assert named.setdefault(word, size) == size, f"{word} is {named[word]} and {size}"
        if name == "image_features":  # four patches make a token
            named["image_tokens"] = named["rows"] * named["columns"] // 4
        return tuple(size if isinstance(size, int) else named[size] for size in self._engine.dims(name))

    def update_device_memory_size_for_shapes(self) -> int:
        assert self._shapes.keys() == set(self._engine.takes), set(self._engine.takes) - self._shapes.keys()
        return WORK_BYTES

    def set_device_memory(self, address: int, size: int) -> None:
        assert address and size >= WORK_BYTES
        self._work = size

    def is_stream_capturable(self, stream: int) -> bool:
        return stream == FakeStream.handle

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == FakeStream.handle and self._work
        missing = self._engine.values.keys() - self._addresses.keys()
        assert not missing, f"no addresses for {missing}"
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        if Context.recording is None:
            self._compute(shapes, addresses)
        else:
            assert self._strategy == "eager", "kernels may change behind a captured graph"
            Context.recording.append(lambda: self._compute(shapes, addresses))
        return True

    def _compute(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> None:
        engine = self._engine
        feeds = {name: _at(addresses[name], shapes[name], engine.kind(name)).copy() for name in engine.takes}
        gone = [name for name in feeds if "chunk_" in name and not len(feeds[name].reshape(-1)) and feeds[name].ndim]
        if gone:  # ONNX Runtime takes no empty group
            feeds |= _stray(feeds)
        taken = {value.name for value in engine.session.get_inputs()}
        results = engine.session.run(engine.gives, {name: feeds[name] for name in taken})
        for name, result in zip(engine.gives, results, strict=True):
            over = engine.get_aliased_input_tensor(name)
            assert over is None or addresses[name] == addresses[over], f"{name} does not lie over {over}"
            if not (gone and name.startswith("chunk_")):
                _at(addresses[name], result.shape, result.dtype)[...] = result


def _stray(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """An empty prefill group as one row that nobody asks about."""
    found = {"chunk_index": np.zeros((1, 1), np.int64), "chunk_seqlens_k": np.zeros(1, np.int32)}
    for name, array in feeds.items():
        if name.startswith("chunk_past"):
            found[name] = np.zeros((1, *array.shape[1:]), array.dtype)
    return found


def _at(address: int, shape: tuple[int, ...], kind: Any) -> np.ndarray:
    """The memory at an address as an array."""
    size = math.prod(shape) * np.dtype(kind).itemsize
    if not size:
        return np.empty(shape, kind)
    memory = (ctypes.c_char * size).from_address(address)
    return np.frombuffer(memory, kind).reshape(shape)
