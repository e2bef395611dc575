"""The small arrays of a step on the device: one place each, as large as it can ever be, for all engines."""

from __future__ import annotations

import numpy as np

from glmserve.engine.runtime.memory import Block
from glmserve.engine.runtime.rtx.engine import Shape
from glmserve.engine.runtime.rtx.stream import Stream

_SMALL_BYTES = 1 << 16
"""Up to this size, comparing an array with the device's content is cheaper than another copy."""


class DeviceArrays:
    """Arrays by their graph's names; their addresses never change, so that captured graphs may keep them."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._blocks: dict[str, Block] = {}
        self._room: dict[str, int] = {}
        self._types: dict[str, np.dtype | None] = {}
        self._sent: dict[str, bytes] = {}
        self._waiting: list[np.ndarray] = []  # alive until they were copied
        self.shapes: dict[str, Shape] = {}

    def make_room(self, name: str, size_bytes: int, dtype: np.dtype | None) -> None:
        """Takes memory for an array of a type once, or for the largest of several that have the name."""
        self._types[name] = dtype
        if size_bytes > self._room.get(name, -1):
            self._blocks[name] = self._stream.memory.allocate(max(1, size_bytes))
            self._room[name] = size_bytes

    @property
    def addresses(self) -> dict[str, int]:
        return {name: block.address for name, block in self._blocks.items()}

    def holds(self, name: str, array: np.ndarray) -> bool:
        """Whether there is room for an array; none is needed where no engine takes it."""
        return name not in self._room or array.nbytes <= self._room[name]

    def put(self, name: str, array: np.ndarray) -> None:
        """Sends an array unless the device holds the same; small ones only are compared."""
        if name not in self._blocks:
            return
        array = np.require(array, requirements="C")
        assert array.dtype == self._types[name], f"{name} is {array.dtype}, and the engines take {self._types[name]}"
        assert array.nbytes <= self._room[name], f"{name} {array.shape} is larger than the engines take"
        self.shapes[name] = array.shape
        content = array.tobytes() if array.nbytes <= _SMALL_BYTES else None
        if content is not None and self._sent.get(name) == content:
            return
        self._waiting.append(array)
        self._stream.put(self._blocks[name].address, array)
        if content is None:
            self._sent.pop(name, None)
        else:
            self._sent[name] = content

    def get(self, name: str, shape: Shape, dtype: type[np.generic]) -> np.ndarray:
        """Asks for an output, which is there after `settle`."""
        array = np.empty(shape, dtype)
        self._stream.get(array, self._blocks[name].address)
        return array

    def settle(self) -> None:
        """Waits for the device; everything asked for is there then."""
        self._stream.wait()
        self._waiting.clear()
