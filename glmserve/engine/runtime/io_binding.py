"""Binds a graph's inputs and outputs once for each set of rows, and updates them in place."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort

from glmserve.engine.runtime.device import Device
from glmserve.engine.runtime.sampling import SamplerInputs

_SMALL_BYTES = 1 << 16
"""Up to this size, comparing an array with the device's content is cheaper than another copy."""


class Binding:
    """The inputs and outputs of one set of rows; an array of the same shape as before is copied into its place.

    Small content that another device holds already is not sent there again.
    """

    def __init__(self, session: ort.InferenceSession, device: Device) -> None:
        self.io: ort.IOBinding = session.io_binding()
        self.sampler: SamplerInputs | None = None  # whose arrays were put last
        self.is_filled = False
        self._device = device.name, device.number
        self._hosted: dict[str, np.ndarray] = {}  # alive as long as they are bound
        self._sent: dict[str, bytes] = {}  # what the small ones on another device hold
        self._values: dict[str, ort.OrtValue] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def put(self, name: str, array: np.ndarray, on_host: bool = False) -> None:
        """Sets an input to a copy; `on_host` keeps it in host memory, where the graph wants it on any device."""
        hosted = self._hosted.get(name)
        if self._shapes.get(name) == array.shape:
            if hosted is not None:
                np.copyto(hosted, array)
            elif self._is_news(name, array):
                self._values[name].update_inplace(np.ascontiguousarray(array))
            return
        if on_host or self._device[0] == "cpu":
            self._hosted[name] = np.array(array, order="C")  # else a copy that onnxruntime makes would be bound
            value = ort.OrtValue.ortvalue_from_numpy(self._hosted[name])
        else:
            self._is_news(name, array)
            value = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), *self._device)
        self._bind(name, value, array.shape)

    def lend(self, name: str, array: np.ndarray) -> None:
        """Sets an input to an array that does not change any more; a CPU reads it in place."""
        if self._device[0] != "cpu":
            self.put(name, array)
        elif self._hosted.get(name) is not array:  # the same array in every step without an image
            self._hosted[name] = np.ascontiguousarray(array)
            self._bind(name, ort.OrtValue.ortvalue_from_numpy(self._hosted[name]), array.shape)

    def receive(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        """Gives an output its place."""
        if self._shapes.get(name) != shape:
            self._values[name] = ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, *self._device)
            self._shapes[name] = shape
            self.io.bind_ortvalue_output(name, self._values[name])

    def _bind(self, name: str, value: ort.OrtValue, shape: tuple[int, ...]) -> None:
        self._values[name], self._shapes[name] = value, shape
        self.io.bind_ortvalue_input(name, value)

    def _is_news(self, name: str, array: np.ndarray) -> bool:
        """Whether a device must be sent this: each copy is waited for, and in a step that decodes few inputs change."""
        if array.nbytes > _SMALL_BYTES:
            return True
        content = array.tobytes()
        if self._sent.get(name) == content:
            return False
        self._sent[name] = content
        return True

    def read(self, name: str) -> np.ndarray:
        """An output's content; on a device this waits for it."""
        return np.array(self._values[name].numpy())
