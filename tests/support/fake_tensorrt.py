"""As much of TensorRT's Python module as engines are made with: it remembers what it was asked for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx_ir as ir

PLAN = b"a serialized engine"


class FakeTensorRt:
    """Handed out in place of the module. Its parser knows ONNX's own operators only, as the real one does."""

    __version__ = "10.15.1"
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)

    def __init__(self) -> None:
        self.flags: list[int] = []
        self.profiles: list[dict[str, tuple]] = []
        self.timing_known: list[bytes] = []
        self.parsed: list[Path] = []

    class Logger:
        WARNING = ERROR = 0

        def __init__(self, _level: int) -> None: ...

    def Builder(self, _logger: Any) -> Any:  # noqa: N802
        return _Builder(self)

    def OnnxParser(self, network: Any, _logger: Any) -> Any:  # noqa: N802
        return _Parser(self, network)


class _Builder:
    def __init__(self, trt: FakeTensorRt) -> None:
        self._trt = trt

    def create_network(self, flags: int) -> Any:
        self._trt.flags.append(flags)
        return SimpleNamespace(nodes=0)

    def create_builder_config(self) -> Any:
        return _Config(self._trt)

    def create_optimization_profile(self) -> Any:
        shapes: dict[str, tuple] = {}
        return SimpleNamespace(
            shapes=shapes, set_shape=lambda name, low, usual, high: shapes.update({name: (low, usual, high)})
        )

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        return PLAN if network.nodes and config.cache is not None else None


class _Parser:
    num_errors = 1

    def __init__(self, trt: FakeTensorRt, network: Any) -> None:
        self._trt, self._network = trt, network

    def parse_from_file(self, path: str) -> bool:
        self._trt.parsed.append(Path(path))
        nodes = list(ir.load(path).graph)
        self._network.nodes = len(nodes)
        return all(node.domain == "" for node in nodes)

    def get_error(self, _index: int) -> str:
        return "an operator that is not ONNX's own"


class _Config:
    def __init__(self, trt: FakeTensorRt) -> None:
        self._trt = trt
        self.cache: bytes | None = None

    def add_optimization_profile(self, profile: Any) -> int:
        self._trt.profiles.append(profile.shapes)
        return 0

    def create_timing_cache(self, known: bytes) -> bytes:
        self._trt.timing_known.append(known)
        return known

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: bytearray(b"timings"))
