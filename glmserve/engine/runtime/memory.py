"""What KV and arrays need of a device: memory, copies, and how much there is."""

from __future__ import annotations

import threading
from typing import Literal, Protocol

DeviceName = Literal["cpu", "cuda"]


class Block(Protocol):
    """A stretch of device memory; alive as long as this object."""

    address: int


class Memory(Protocol):
    """A device's memory. Arrays go in and out as numpy; KV stays."""

    name: DeviceName
    number: int
    capturing: threading.Lock
    """Held while a CUDA graph is captured, and by threads that run anything beside the decoder: an allocation on any
    thread ends a capture."""

    def use(self) -> None:
        """Makes it the one that this thread's calls mean."""
        ...

    def allocate(self, size_bytes: int) -> Block: ...

    def fill_with_nan(self, block: Block, size_bytes: int) -> None: ...

    def copy(self, source: int, target: int, pitches_bytes: tuple[int, int], width_bytes: int, count: int) -> None:
        """Copies `count` pieces of `width_bytes`; done after `wait`. `pitches_bytes` lie between the beginnings of two
        pieces at the source and at the target."""
        ...

    def wait(self) -> None:
        """Until every copy is done."""
        ...

    def total_memory_bytes(self) -> int:
        """What this process may plan with: the device's memory, or this container's share of the machine's."""
        ...
