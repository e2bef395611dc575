"""One plan on the device: what it takes and gives, and contexts that run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glmserve.engine.runtime.memory import Block, Memory
from glmserve.engine.runtime.rtx.kernel_cache import KernelCache
from glmserve.errors import BadArtifact

Shape = tuple[int, ...]
_PROFILE, _MOST = 0, 2
"""Engines have one profile, whose shapes are the least, the usual and the most."""


class PlanEngine:
    """A deserialized plan; raises BadArtifact when TensorRT refuses it."""

    def __init__(self, trt: Any, runtime: Any, plan: Path, cache: KernelCache) -> None:
        self._trt, self._cache = trt, cache
        try:
            content = plan.read_bytes()
        except OSError:
            raise BadArtifact(f"The build lacks {plan.name}.") from None
        self._engine = runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise BadArtifact(f"TensorRT for RTX cannot load {plan.name} on this GPU; the log says why.")
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        modes = {name: self._engine.get_tensor_mode(name) for name in names}
        self.inputs = [name for name in names if modes[name] == trt.TensorIOMode.INPUT]
        self.outputs = [name for name in names if modes[name] == trt.TensorIOMode.OUTPUT]

    def item_bytes(self, name: str) -> int:
        """Bytes of one number of an input or output."""
        return int(self._engine.get_tensor_dtype(name).itemsize)

    def dtype(self, name: str) -> np.dtype | None:
        """numpy's type of an input or output; None for bf16, which it has not."""
        try:
            return np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
        except TypeError:
            return None

    def most(self, name: str) -> Shape:
        """An input's largest shape."""
        return tuple(self._engine.get_tensor_profile_shape(name, _PROFILE)[_MOST])

    def writes_over(self, name: str) -> str | None:
        """The input whose memory an output has to have, where it has."""
        found = self._engine.get_aliased_input_tensor(name)
        return found or None

    def context(self, has_few_shapes: bool = False) -> Context:
        """A new context, whose working memory others give it. What it compiles is kept for the next start.

        Kernels for each shape are compiled while general ones serve it; where a context `has_few_shapes`, before it
        runs, since they must not change behind a captured graph.
        """
        strategies = self._trt.DynamicShapesKernelSpecializationStrategy
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER if has_few_shapes else strategies.LAZY
        config.cuda_graph_strategy = self._trt.CudaGraphStrategy.DISABLED  # graphs span engines, and are ours
        self._cache.join(config)
        return Context(self, self._engine.create_execution_context(config))


class Context:
    """Runs an engine with the shapes and addresses that it was given last; used by one thread."""

    def __init__(self, engine: PlanEngine, context: Any) -> None:
        if context is None:
            raise BadArtifact("TensorRT for RTX makes no context of an engine; the log says why.")
        self.engine = engine
        self._context = context
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}

    def shape(self, shapes: Mapping[str, Shape]) -> None:
        """Sets the shapes of those inputs that the engine has."""
        for name in self.engine.inputs:
            wanted = shapes.get(name)
            if wanted is not None and self._shapes.get(name) != wanted:
                _demand(self._context.set_input_shape(name, wanted), f"{name} takes no shape {wanted}")
                self._shapes[name] = wanted

    def address(self, addresses: Mapping[str, int]) -> None:
        """Sets where those inputs and outputs lie that the engine has."""
        for name in (*self.engine.inputs, *self.engine.outputs):
            wanted = addresses.get(name)
            if wanted is not None and self._addresses.get(name) != wanted:
                _demand(self._context.set_tensor_address(name, wanted), f"{name} cannot lie at {wanted:#x}")
                self._addresses[name] = wanted

    def shape_of(self, name: str) -> Shape:
        """An output's shape, once every input has one."""
        return tuple(self._context.get_tensor_shape(name))

    def work_bytes(self) -> int:
        """The working memory that the shapes set last ask for."""
        return int(self._context.update_device_memory_size_for_shapes())

    def work_in(self, block: Block, size_bytes: int) -> None:
        """Gives the context its working memory."""
        self._context.set_device_memory(block.address, size_bytes)

    def is_capturable(self, stream: int) -> bool:
        """Whether a run with these shapes can be captured as a CUDA graph."""
        return bool(self._context.is_stream_capturable(stream))

    def run(self, stream: int) -> None:
        _demand(self._context.execute_async_v3(stream), "an engine of TensorRT for RTX did not run")


class WorkMemory:
    """Working memory that grows with what is asked of it; contexts that run one after another share it.

    `generation` counts its growths: what was captured in an older one must not run again.
    """

    def __init__(self, memory: Memory) -> None:
        self.generation = 0
        self._memory = memory
        self._block: Block | None = None
        self._size = 0

    def give(self, contexts: Sequence[Context]) -> None:
        """Sees that each context has what its shapes ask for. Nothing may be running in the memory."""
        needed = max(1, *(context.work_bytes() for context in contexts))
        if self._block is None or needed > self._size:
            self._block = None  # given back before more is taken
            self._block, self._size = self._memory.allocate(needed), needed
            self.generation += 1
        for context in contexts:
            context.work_in(self._block, self._size)


def elements(shape: Shape) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _demand(done: bool, fault: str) -> None:
    if not done:
        raise RuntimeError(f"TensorRT for RTX: {fault}.")
