"""Codes with a scale for each group of inputs, laid into the blocks that a graph multiplies by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from export.checkpoint.formats.published import PublishedTensor
from export.checkpoint.packed import Codes, PackedWeight, block_of, by_block

PER_OUTPUT = 0
"""Instead of a group: all inputs of an output share a scale."""
_PUBLISHED_GROUP = 128
_NARROW = 4


@dataclass(frozen=True)
class GroupedCodes:
    """A weight (out, in) as GPTQ, AWQ and compressed-tensors have it, a scale for every `group` inputs.

    `read(begin, end)` gives, for some outputs, codes u8 [rows, in] counted from 0, scales f32 [rows, groups] and zero
    points u8 [rows, groups], or None for the middle of the range. `groups` i64 [in], where it is given, names each
    input's group; else they follow one another.
    """

    shape: tuple[int, int]
    bits: int
    group: int
    read: Callable[[int, int], tuple[np.ndarray, np.ndarray, np.ndarray | None]]
    has_zeros: bool
    groups: np.ndarray | None = None

    def published(self, file: str, stored_bytes: int) -> PublishedTensor:
        """The tensor, its codes kept where blocks can be made of its groups."""
        order, is_mixed = self._order()
        block = block_of(self.group or _PUBLISHED_GROUP)
        scheme = f"{self.bits} bits, {f'groups of {self.group}' if self.group else 'a scale for each output'}"
        scheme += ", zero points" if self.has_zeros else ""
        scheme += ", act-order" if order is not None or is_mixed else ""
        if block is None or is_mixed:
            why = (
                "act-order has groups of unequal size" if is_mixed else f"groups of {self.group} inputs make no blocks"
            )
            return PublishedTensor(file, self.shape, stored_bytes, self._values, bits=self.bits, scheme=scheme, why=why)
        is_per_output = self.group == PER_OUTPUT and not self.has_zeros
        kept = PackedWeight(
            self.shape,
            4 if self.bits <= _NARROW else 8,
            block,
            lambda begin, end: self._blocks(begin, end, block, order),
            has_zeros=self._has_own_zeros,
            is_per_output=is_per_output,
            order=order,
        )
        return PublishedTensor.of(kept, file, stored_bytes, scheme, self.bits)

    @property
    def _has_own_zeros(self) -> bool:
        """Whether zero points are written: also where codes of fewer bits have another middle."""
        return self.has_zeros or self.bits not in (4, 8)

    @property
    def _width(self) -> int:
        return self.group or self.shape[1]

    def _order(self) -> tuple[np.ndarray | None, bool]:
        """The inputs group by group, None where they come so; and whether the groups are of unequal size."""
        if self.groups is None or self.group == PER_OUTPUT:
            return None, False
        in_turn = np.arange(self.shape[1]) // self.group
        if np.array_equal(self.groups, in_turn):
            return None, False
        order = np.argsort(self.groups, kind="stable").astype(np.int64)
        return order, not np.array_equal(self.groups[order], in_turn)

    def _blocks(self, begin: int, end: int, block: int, order: np.ndarray | None) -> Codes:
        codes, scales, zeros = self.read(begin, end)
        inputs = self.shape[1]
        if order is not None:
            codes = codes[:, order]
        if zeros is None and self._has_own_zeros:
            zeros = np.full(scales.shape, 1 << (self.bits - 1), np.uint8)
        width = self.group or -(-inputs // block) * block
        spread = (None if one is None else by_block(one, width, block, inputs) for one in (scales, zeros))
        scales_by_block, zeros_by_block = spread
        assert scales_by_block is not None
        return Codes(codes, scales_by_block, zeros_by_block)

    def _values(self, begin: int, end: int) -> np.ndarray:
        """The numbers f32 [rows, in], whatever the groups."""
        codes, scales, zeros = self.read(begin, end)
        of_input = np.arange(self.shape[1]) // self._width if self.groups is None else self.groups
        middle = np.float32(1 << (self.bits - 1)) if zeros is None else zeros[:, of_input].astype(np.float32)
        values: np.ndarray = (codes.astype(np.float32) - middle) * scales[:, of_input]
        return values
