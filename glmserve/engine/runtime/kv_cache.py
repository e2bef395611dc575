"""KV cache: one key and one value buffer per layer; each step binds its rows."""

from __future__ import annotations

from dataclasses import dataclass

import onnxruntime as ort

from glmserve.contract import DecoderGraph, RowGroup
from glmserve.engine.runtime.memory import Block, Memory
from glmserve.model.config import TextModel

ELEMENT_TYPES = {"tensor(float)": 1, "tensor(float16)": 10, "tensor(bfloat16)": 16, "tensor(int8)": 3}
"""onnxruntime's names for the types KV may have, and ONNX's numbers for them."""
_ELEMENT_BYTES = {1: 4, 3: 1, 10: 2, 16: 2}


@dataclass(frozen=True)
class KvShape:
    """`rows` x [kv_heads, context, head_dim], for keys and for values of every layer; of these the first `short_rows`
    are [kv_heads, short_tokens, head_dim] only."""

    rows: int
    kv_heads: int
    context: int
    head_dim: int
    layers: int
    element_type: int
    short_rows: int = 0
    short_tokens: int = 0

    @staticmethod
    def of(
        text: TextModel, rows: int, context: int, element_type: int, short_rows: int = 0, short_tokens: int = 0
    ) -> KvShape:
        return KvShape(rows, text.kv_heads, context, text.head_dim, text.layers, element_type, short_rows, short_tokens)

    @property
    def token_bytes(self) -> int:
        """One head's keys (or values) of one token."""
        return self.head_dim * _ELEMENT_BYTES[self.element_type]

    @property
    def row_bytes(self) -> int:
        """One row of one buffer, of those that hold the context."""
        return self.kv_heads * self.context * self.token_bytes

    def room(self, row: int) -> int:
        """Tokens that a row holds."""
        return self.short_tokens if row < self.short_rows else self.context

    def begin(self, row: int) -> int:
        """Bytes of a buffer before a row; of `rows`, of all of it."""
        short = min(row, self.short_rows)
        tokens = short * self.short_tokens + (row - short) * self.context
        return tokens * self.kv_heads * self.token_bytes


class KvCache:
    """Past and present are the same memory, so a step writes its KV in place.

    One more row, a token long, is the stray row of an empty group.
    """

    def __init__(self, device: Memory, shape: KvShape) -> None:
        self.shape = shape
        self._device = device
        self._size = shape.begin(shape.rows)
        self._blocks = [device.allocate(self._size) for _ in range(2 * shape.layers)]
        self._stray = [device.allocate(shape.kv_heads * shape.token_bytes) for _ in range(2 * shape.layers)]
        self._names = {
            group: [
                pair
                for layer in range(shape.layers)
                for pair in zip(group.past(layer), group.present(layer), strict=True)
            ]
            for group in (DecoderGraph.DECODED, DecoderGraph.CHUNK)
        }

    def bind(self, binding: ort.IOBinding, group: RowGroup, first: int, rows: int) -> None:
        """Binds rows [first, first + rows) of one size, or the stray row for none, as a group's past and present in all
        layers."""
        shape, kind = self.shape, self.shape.element_type
        dims = (rows or 1, shape.kv_heads, shape.room(first) if rows else 1, shape.head_dim)
        blocks, skipped = (self._blocks, shape.begin(first)) if rows else (self._stray, 0)
        for block, (past, present) in zip(blocks, self._names[group], strict=True):
            address = block.address + skipped
            binding.bind_input(past, self._device.name, self._device.number, kind, dims, address)
            binding.bind_output(present, self._device.name, self._device.number, kind, dims, address)

    @property
    def blocks(self) -> list[Block]:
        """The memory of keys and values, layer by layer."""
        return self._blocks

    def addresses(self, group: RowGroup, first: int) -> dict[str, int]:
        """Where a group's past and present lie in all layers, from row `first` on, by the graph's names."""
        skipped = self.shape.begin(first)
        return {
            name: block.address + skipped
            for block, pair in zip(self._blocks, self._names[group], strict=True)
            for name in pair
        }

    def move(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` tokens of a row to another."""
        shape = self.shape
        self._device.use()
        for block in self._blocks:
            self._device.copy(
                block.address + shape.begin(source),
                block.address + shape.begin(target),
                pitches_bytes=(shape.room(source) * shape.token_bytes, shape.room(target) * shape.token_bytes),
                width_bytes=length * shape.token_bytes,
                count=shape.kv_heads,
            )
        self._device.wait()

    def poison(self) -> None:
        """Fills every row with NaN, so that a test notices reads of memory that was never written."""
        for block in self._blocks:
            self._device.fill_with_nan(block, self._size)
