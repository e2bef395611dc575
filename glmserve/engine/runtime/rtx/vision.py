"""The image encoder on TensorRT for RTX, on a stream of its own beside the decoder's."""

from __future__ import annotations

import numpy as np

from glmserve.contract import COLUMN_WEIGHTS, IMAGE_FEATURES, IMAGE_PATCHES, ROW_WEIGHTS
from glmserve.engine.runtime.memory import Block
from glmserve.engine.runtime.rtx.engine import PlanEngine, WorkMemory
from glmserve.engine.runtime.rtx.stream import Stream
from glmserve.engine.vision.stop import Stop
from glmserve.errors import BackendDown
from glmserve.model.position_embedding import VisionArrays


class RtxVision:
    """As `OrtVision`; its memory grows with the largest images it has seen."""

    def __init__(self, engine: PlanEngine, stream: Stream) -> None:
        self._stream = stream
        self._context = engine.context()
        self._work = WorkMemory(stream.memory)
        self._blocks: dict[str, tuple[Block, int]] = {}

    def run(
        self, patches: np.ndarray, row_weights: np.ndarray, column_weights: np.ndarray, stop: Stop | None = None
    ) -> np.ndarray:
        """Features f32 [B, image tokens, hidden] of B images of one grid; see `contract.VISION_INPUTS`.

        A run that has begun on the card ends; `stop` only keeps one from beginning.
        """
        if stop is not None and stop.is_set():
            raise BackendDown("The run was stopped.")
        inputs = {IMAGE_PATCHES.name: patches, ROW_WEIGHTS.name: row_weights, COLUMN_WEIGHTS.name: column_weights}
        arrays = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        context, stream = self._context, self._stream
        with stream.memory.capturing:
            stream.memory.use()
            context.shape({name: array.shape for name, array in arrays.items()})
            features = np.empty(context.shape_of(IMAGE_FEATURES.name), np.float32)
            addresses = {name: self._place(name, array.nbytes) for name, array in arrays.items()}
            addresses[IMAGE_FEATURES.name] = self._place(IMAGE_FEATURES.name, features.nbytes)
            context.address(addresses)
            self._work.give([context])
            for name, array in arrays.items():
                stream.put(addresses[name], array)
            context.run(stream.handle)
            stream.get(features, addresses[IMAGE_FEATURES.name])
            stream.wait()
        return features

    def encode(self, arrays: VisionArrays) -> np.ndarray:
        """Features f32 [image tokens, hidden] of one image."""
        patches, rows, columns = arrays
        return self.run(patches[None], rows[None], columns[None])[0]  # type: ignore[no-any-return]

    def _place(self, name: str, size_bytes: int) -> int:
        """Where an array of this size lies."""
        found = self._blocks.get(name)
        if found is None or found[1] < size_bytes:
            self._blocks.pop(name, None)
            found = self._stream.memory.allocate(max(1, size_bytes)), size_bytes
            self._blocks[name] = found
        return found[0].address
