"""A checkpoint's safetensors read one tensor at a time, so that memory holds no more than the largest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from safetensors import SafetensorError, safe_open

from glmserve.errors import BadArtifact

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


@dataclass(frozen=True)
class Weights:
    """Where each named tensor lies; nothing is read before it is asked for."""

    folder: Path
    shards: dict[str, str]

    @staticmethod
    def open(folder: Path) -> Weights:
        """Reads the shard index (or the single file's header); raises BadArtifact naming the missing file."""
        if (folder / _INDEX).exists():
            try:
                shards = json.loads((folder / _INDEX).read_text("utf-8"))["weight_map"]
            except (OSError, ValueError, KeyError):
                raise BadArtifact(f"The checkpoint's {_INDEX} has no readable weight_map.") from None
        elif (folder / _SINGLE).exists():
            shards = dict.fromkeys(_names(folder / _SINGLE), _SINGLE)
        else:
            raise BadArtifact(f"{folder} holds neither {_SINGLE} nor {_INDEX}; only safetensors are read.")
        for name in sorted(set(shards.values())):
            if not (folder / name).is_file():
                raise BadArtifact(f"The checkpoint lacks its shard {name}.")
        return Weights(folder, shards)

    @property
    def files(self) -> list[Path]:
        """The safetensors files, sorted by name."""
        return [self.folder / name for name in sorted(set(self.shards.values()))]

    def read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """One tensor in the checkpoint's own precision; raises BadArtifact when it is missing or of another shape."""
        shard = self.shards.get(name)
        if shard is None:
            raise BadArtifact(f"The checkpoint has no tensor {name}.")
        try:
            with safe_open(self.folder / shard, framework="np") as file:
                array: np.ndarray = file.get_tensor(name)
        except SafetensorError:
            raise BadArtifact(f"{shard} is truncated or not a safetensors file (reading {name}).") from None
        if array.shape != shape:
            raise BadArtifact(f"Tensor {name} has shape {list(array.shape)}, its config asks for {list(shape)}.")
        return array

    def lazy(self, name: str, shape: tuple[int, ...]) -> ir.LazyTensor:
        """The fp32 initializer of a tensor, read only while it is written."""

        def load() -> ir.Tensor:
            return ir.Tensor(self.read(name, shape).astype(np.float32), name=name)

        return ir.LazyTensor(load, ir.DataType.FLOAT, ir.Shape(shape), name=name)


def _names(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="np") as file:
            return list(file.keys())
    except SafetensorError:
        raise BadArtifact(f"{path.name} is truncated or not a safetensors file.") from None
