"""A linear layer's weight in whole codes with a scale for each block: the one form that every published format is put
into, and the tensors that a graph multiplies by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

_CHUNK_CODES = 1 << 22
_LEAST_BLOCK, _WIDEST_BLOCK = 16, 128
"""Inputs that may share a scale in MatMulNBits, on a processor and on a GPU."""


@dataclass(frozen=True)
class Codes:
    """Some outputs' weights, each (code - zero) * scale + offset with the numbers of its block.

    `codes` u8 [rows, inputs], `scales` f32 [rows, blocks], `zeros` u8 [rows, blocks] or None for the middle of the
    codes' range, `offsets` f32 [rows, blocks] or None for none.
    """

    codes: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray | None = None
    offsets: np.ndarray | None = None


@dataclass(frozen=True)
class PackedTensors:
    """What a graph needs of such a weight: scales [out, blocks], codes u8 [out, blocks, bytes of a block] with the low
    half byte first, and where the weight has them zero points u8 [out, bytes], offsets [out, blocks] and the order
    i64 [in] in which its inputs are taken."""

    scales: ir.LazyTensor
    codes: ir.LazyTensor
    zeros: ir.LazyTensor | None = None
    offsets: ir.LazyTensor | None = None
    order: ir.LazyTensor | None = None

    @property
    def all(self) -> list[ir.LazyTensor]:
        every = (self.scales, self.codes, self.zeros, self.offsets, self.order)
        return [tensor for tensor in every if tensor is not None]


@dataclass(frozen=True)
class PackedWeight:
    """A weight `shape` (out, in) in codes of 4 or 8 `bits`, with a scale for `block` inputs.

    `load(begin, end)` reads the outputs from begin to end; the columns of their codes are the inputs in `order` i64
    [in], or as they come where that is None. `is_per_output`: all blocks of an output have one scale, and no zeros.
    """

    shape: tuple[int, int]
    bits: int
    block: int
    load: Callable[[int, int], Codes]
    has_zeros: bool = False
    has_offsets: bool = False
    is_per_output: bool = False
    order: np.ndarray | None = None

    @property
    def blocks(self) -> int:
        """Blocks of an output; the last is filled up."""
        return -(-self.shape[1] // self.block)

    @property
    def middle(self) -> int:
        """The code of zero where no zero points are stored."""
        return 1 << (self.bits - 1)

    def values(self, begin: int, end: int) -> np.ndarray:
        """The numbers f32 [rows, in] that the codes of the outputs from begin to end stand for."""
        held, inputs = self.load(begin, end), self.shape[1]
        codes = _filled_up(held.codes, self.blocks * self.block).reshape(-1, self.blocks, self.block)
        zeros = np.float32(self.middle) if held.zeros is None else held.zeros[..., None].astype(np.float32)
        values: np.ndarray = (codes.astype(np.float32) - zeros) * held.scales[..., None]
        if held.offsets is not None:
            values += held.offsets[..., None]
        values = values.reshape(len(held.codes), -1)[:, :inputs]
        if self.order is None:
            return values
        turned: np.ndarray = np.empty_like(values)
        turned[:, self.order] = values
        return turned

    def tensors(self, real: ir.DataType, title: str) -> PackedTensors:
        """The initializers, the codes called `title`, scales and offsets in `real`; each is read while it is written,
        some outputs at a time."""
        out, blocks, order = self.shape[0], self.blocks, self.order
        per_block = (real, (out, blocks))
        packed_zeros = (out, -(-blocks * self.bits // 8))
        return PackedTensors(
            self._lazy(f"{title}.scales", per_block, lambda held: held.scales.astype(real.numpy())),
            self._lazy(title, (ir.DataType.UINT8, (out, blocks, self.block * self.bits // 8)), self._codes),
            self._lazy(f"{title}.zeros", (ir.DataType.UINT8, packed_zeros), self._zeros) if self.has_zeros else None,
            self._lazy(f"{title}.offsets", per_block, lambda held: _offsets(held).astype(real.numpy()))
            if self.has_offsets
            else None,
            None if order is None else _whole(f"{title}.order", order),
        )

    def byte_tensors(self, begin: int, width: int, title: str) -> tuple[ir.LazyTensor, ir.LazyTensor]:
        """Scales f32 [out] and codes i8 [width, out], called `title`, of the inputs from begin on; only where
        `is_per_output` and `bits` is 8."""
        assert self.is_per_output and self.bits == 8
        out, inputs = self.shape[0], slice(begin, begin + width)

        def codes() -> ir.Tensor:
            turned = np.empty((width, out), np.int8)
            for rows in _chunks(self.shape):
                held = self.load(rows.start, rows.stop).codes[:, inputs]
                turned[:, rows] = (held ^ np.uint8(128)).view(np.int8).T  # a code less 128
            return ir.Tensor(turned, name=title)

        lazy = ir.LazyTensor(codes, ir.DataType.INT8, ir.Shape((width, out)), name=title)
        scales = (ir.DataType.FLOAT, (out,))
        return self._lazy(f"{title}.scales", scales, lambda held: held.scales[:, 0]), lazy

    def _lazy(
        self, name: str, kind: tuple[ir.DataType, tuple[int, ...]], made: Callable[[Codes], np.ndarray]
    ) -> ir.LazyTensor:
        dtype, shape = kind

        def load() -> ir.Tensor:
            array = np.empty(shape, dtype.numpy())
            for rows in _chunks(self.shape):
                array[rows] = made(self.load(rows.start, rows.stop))
            return ir.Tensor(array, name=name)

        return ir.LazyTensor(load, dtype, ir.Shape(shape), name=name)

    def _codes(self, held: Codes) -> np.ndarray:
        codes = _filled_up(held.codes, self.blocks * self.block).reshape(len(held.codes), self.blocks, self.block)
        return codes if self.bits == 8 else codes[..., 0::2] | (codes[..., 1::2] << 4)

    def _zeros(self, held: Codes) -> np.ndarray:
        assert held.zeros is not None
        if self.bits == 8:
            return held.zeros
        zeros = _filled_up(held.zeros, 2 * (-(-self.blocks // 2)))
        packed: np.ndarray = zeros[:, 0::2] | (zeros[:, 1::2] << 4)
        return packed


def block_of(group: int) -> int | None:
    """The widest block that groups of so many inputs are made of; None where the operator has none so narrow."""
    block = min(group & -group, _WIDEST_BLOCK)
    return block if block >= _LEAST_BLOCK else None


def by_block(per_group: np.ndarray, group: int, block: int, inputs: int) -> np.ndarray:
    """Numbers [rows, groups] of groups of inputs, as numbers [rows, blocks] of the blocks that they are made of."""
    return np.repeat(per_group, group // block, axis=1)[:, : -(-inputs // block)]


def rows_at_once(inputs: int) -> int:
    """Outputs that are read at a time, so that memory stays bounded."""
    return max(1, _CHUNK_CODES // inputs)


def _chunks(shape: tuple[int, int]) -> list[slice]:
    step = rows_at_once(shape[1])
    return [slice(begin, min(begin + step, shape[0])) for begin in range(0, shape[0], step)]


def _whole(name: str, array: np.ndarray) -> ir.LazyTensor:
    dtype = ir.DataType.from_numpy(array.dtype)
    return ir.LazyTensor(lambda: ir.Tensor(array, name=name), dtype, ir.Shape(array.shape), name=name)


def _offsets(held: Codes) -> np.ndarray:
    assert held.offsets is not None
    return held.offsets


def _filled_up(rows: np.ndarray, width: int) -> np.ndarray:
    """Rows with zeros behind them up to a width."""
    return rows if rows.shape[1] == width else np.pad(rows, ((0, 0), (0, width - rows.shape[1])))
