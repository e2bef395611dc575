"""What engines are asked for: the GPUs, the sizes, and the memory that building may take."""

from __future__ import annotations

from dataclasses import dataclass

from export.rtx.profiles import EngineSizes

DEFAULT_SIZES = EngineSizes(rows=16, context=8192, chunk_tokens=256)
"""The engine's own defaults."""
DEFAULT_MEMORY_BYTES = 8_000_000_000


@dataclass(frozen=True)
class EngineOrder:
    """`capabilities` are compute capabilities such as 8.9, () for all that TensorRT for RTX knows; no process that
    builds is to take more than `memory_bytes`."""

    capabilities: tuple[str, ...] = ()
    sizes: EngineSizes = DEFAULT_SIZES
    memory_bytes: int = DEFAULT_MEMORY_BYTES
