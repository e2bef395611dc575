"""Writes the layers of a graph in a build's precision: weights streamed from a checkpoint, one method an operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from export.checkpoint.packed import PackedWeight
from export.checkpoint.weights import Weights
from export.graph.builder import CONTRIB, OnnxGraphBuilder
from export.graph.int8_linear import Int8Linear
from export.graph.packed_linear import INT8_ACTIVATIONS, PackedLinear
from export.precision import FP32, Numbers
from export.quantize.blockwise import BLOCK
from glmserve.errors import BadArtifact

SIGNED = {8: ".int8", 4: ".int4"}
"""What is added to a weight's name where its codes have a sign, as standard operators take them."""
UNROUNDED = "unrounded"
"""What the nodes are called that make numbers of such codes."""


def joined(tensors: Sequence[ir.TensorProtocol], axis: int, name: str = "") -> ir.LazyTensor:
    """Tensors laid side by side along an axis, under the first one's name if no other is given."""
    name, dtype = name or str(tensors[0].name), tensors[0].dtype
    shapes = [tensor.shape.numpy() for tensor in tensors]  # of whole numbers
    shape = [int(size) for size in shapes[0]]
    shape[axis] = sum(int(each[axis]) for each in shapes)
    return ir.LazyTensor(
        lambda: ir.Tensor(np.concatenate([tensor.numpy() for tensor in tensors], axis=axis), name=name),
        dtype,
        ir.Shape(shape),
        name=name,
    )


class GraphWriter(OnnxGraphBuilder):
    """Builds one graph layer by layer; `real` is the type of its activations, `kv` that of its KV."""

    def __init__(self, weights: Weights, numbers: Numbers = FP32, is_standard: bool = False) -> None:
        assert not (is_standard and numbers.rounds_kv), "no standard operator keeps KV in 8 bits"
        super().__init__(weights, is_standard)
        self.real = numbers.real
        self.kv = numbers.kv
        self._numbers = numbers
        self._loaded: dict[str, ir.Value] = {}
        self._tables: set[str] = set()
        self._bytes = Int8Linear(self)
        self._packed = PackedLinear(self, self.real)

    @property
    def fuses(self) -> bool:
        """Whether ONNX Runtime is to run the graph on a GPU, where each node is a launch."""
        return self._numbers.fuses and not self.is_standard

    def bits_of(self, weight: str) -> int | None:
        """What a layer's weight is rounded to; None where it is not."""
        return 8 if weight in self._numbers.in_8_bits else self._numbers.bits

    def weight(self, name: str, shape: tuple[int, ...], dtype: ir.DataType | None = None) -> ir.Value:
        """A tensor of the checkpoint as an initializer under its own name, in the graph's own type or another; loaded
        once however often it is used."""
        if name not in self._loaded:
            self._loaded[name] = self.initializer(self.weights.lazy(name, shape, dtype or self.real))
        return self._loaded[name]

    def table(self, name: str, shape: tuple[int, ...]) -> ir.Value:
        """A tensor of the checkpoint whose rows are looked up, never multiplied: where layers are rounded it keeps the
        checkpoint's own precision, which costs nothing."""
        if self._numbers.bits is None and not self._numbers.kept_bits:
            return self.weight(name, shape)
        self._tables.add(name)
        return self.initializer(self.weights.lazy(name, shape, self.weights.stored_dtype(name)))

    def array(self, array: np.ndarray, name: str, dtype: ir.DataType | None = None) -> ir.Value:
        """Any other initializer, in the graph's own type or another."""
        return self.initializer(ir.Tensor(array.astype((dtype or self.real).numpy()), name=name))

    def linear(self, x: ir.Value, weight: ir.Value, name: str, bias: ir.Value | None = None) -> ir.Value:
        """x [..., in] times weight [out, in] transposed, plus bias [out]: weights stay as a checkpoint stores them."""
        title = name if bias is None else f"{name}.matmul"
        if self.is_standard:
            turned = self.op("Transpose", [weight], f"{name}.weight", perm=[1, 0])
            product = self.op("MatMul", [x, turned], title)
        else:
            product = self.op("FusedMatMul", [x, weight], title, CONTRIB, transB=1)
        return product if bias is None else self.op("Add", [product, bias], name)

    def projection(
        self, x: ir.Value, source: str, sizes: tuple[int, int], name: str, has_bias: bool = False, gentle: bool = False
    ) -> ir.Value:
        """The checkpoint's linear layer `source`, sizes (in, out), in the build's precision (see `Numbers.gentle`).

        What is rounded keeps its name, unless that is a table's of the graph: a head that is tied to the embeddings.
        """
        weight, shape = f"{source}.weight", (sizes[1], sizes[0])
        is_gentle = gentle or weight in self._numbers.in_8_bits
        numbers = self._numbers_for(weight, self._numbers.gentle if is_gentle else self._numbers)
        bias = self.weight(f"{source}.bias", (sizes[1],)) if has_bias else None
        node = name if bias is None else f"{name}.matmul"
        title = f"{name}.weight" if weight in self._tables else weight
        packed = self._kept(weight, shape, numbers)
        if packed is not None:
            if self._packed.is_bytewise(packed):
                product = self._bytes.linear(x, weight, shape, node, title)
            else:
                product = self._packed.linear(x, packed, node, title)
        elif numbers.bits is None:
            return self.linear(x, self._unrounded(weight, shape, title), name, bias)
        elif self.is_standard:
            product = self._unrounded_linear(x, weight, shape, numbers.bits, node)
        elif numbers.multiplies_bytes:
            product = self._bytes.linear(x, weight, shape, node, title)
        else:
            product = self._rounded_linear(x, weight, shape, numbers.bits, node, title)
        return product if bias is None else self.op("Add", [product, bias], name)

    def keeps(self, source: str, sizes: tuple[int, int]) -> bool:
        """Whether the layer `source`, sizes (in, out), keeps the codes that it is published in."""
        return self._kept(f"{source}.weight", (sizes[1], sizes[0]), self._numbers) is not None

    def _kept(self, weight: str, shape: tuple[int, int], numbers: Numbers) -> PackedWeight | None:
        packed = None if self.is_standard else self.weights.packed(weight, shape)
        return packed if packed is not None and packed.bits in numbers.kept_bits else None

    def _numbers_for(self, weight: str, numbers: Numbers) -> Numbers:
        """What a layer is computed in: one in codes has 8 bits where the others keep theirs and it cannot."""
        keeps_only = numbers.bits is None and numbers.kept_bits
        return replace(numbers, bits=8) if keeps_only and self.weights.is_coded(weight) else numbers

    def _unrounded(self, weight: str, shape: tuple[int, int], title: str) -> ir.Value:
        """A layer's weight in numbers, called `title`: a table is kept in a type of its own."""
        if title == weight:
            return self.weight(weight, shape)
        tensor = self.weights.lazy(weight, shape, self.real)
        tensor.name = title
        return self.initializer(tensor)

    def projections(
        self, x: ir.Value, sources: Sequence[str], inputs: int, outputs: Sequence[int], names: Sequence[str]
    ) -> list[ir.Value]:
        """Linear layers with biases that take the same x [..., inputs]; each is called as in `names`.

        In 8 bits with standard operators they are one product: TensorRT for RTX makes one of them in any case, and
        would unpack and join their weights in every step.
        """
        layers = list(zip(sources, outputs, names, strict=True))
        if not (self.is_standard and self._numbers.bits == 8):
            return [self.projection(x, source, (inputs, out), name, has_bias=True) for source, out, name in layers]
        lazy = [
            self.weights.lazy_unblocked(f"{source}.weight", (out, inputs), 8, self.real, f"{source}.weight{SIGNED[8]}")
            for source, out, _ in layers
        ]
        scales, codes = (
            joined(tensors, axis=axis) for tensors, axis in zip(zip(*lazy, strict=True), (0, 1), strict=True)
        )
        real = self.op("DequantizeLinear", [*map(self.initializer, (codes, scales))], f"{names[0]}.{UNROUNDED}", axis=1)
        product = self.op("MatMul", [x, real], f"{names[0]}.together")
        parts = self.op_many(
            "Split", [product, self.constant(list(outputs), np.int64)], [f"{name}.matmul" for name in names], axis=-1
        )
        biases = [self.weight(f"{source}.bias", (out,)) for source, out, _ in layers]
        return [self.op("Add", [part, bias], name) for part, bias, name in zip(parts, biases, names, strict=True)]

    def _rounded_linear(
        self, x: ir.Value, weight: str, shape: tuple[int, int], bits: int, name: str, title: str
    ) -> ir.Value:
        """As `linear`, with the weight rounded: each row's activations are rounded by themselves, block by block."""
        return self.multiply_rounded(
            x, self.weights.lazy_rounded(weight, shape, bits, self.real, title), shape, bits, name
        )

    def multiply_rounded(
        self, x: ir.Value, rounded: Sequence[ir.TensorProtocol], shape: tuple[int, int], bits: int, name: str
    ) -> ir.Value:
        """x [..., in] times a weight [out, in] that is given as scales and codes, transposed."""
        scales, codes = map(self.initializer, rounded)
        return self.op(
            "MatMulNBits",
            [x, codes, scales],
            name,
            CONTRIB,
            K=shape[1],
            N=shape[0],
            bits=bits,
            block_size=BLOCK[bits],
            accuracy_level=INT8_ACTIVATIONS,
        )

    def _unrounded_linear(self, x: ir.Value, weight: str, shape: tuple[int, int], bits: int, name: str) -> ir.Value:
        """As `linear`, with the weight rounded, in the two forms that TensorRT for RTX multiplies by without unpacking
        them first: 8 bits with a scale for each output, 4 bits with one for a block of inputs."""
        if bits == 4 and shape[1] % BLOCK[bits]:
            raise BadArtifact(
                f"{weight} has {shape[1]} inputs, no multiple of {BLOCK[bits]}: export it in int8 or bf16."
            )
        lazy = self.weights.lazy_unblocked(weight, shape, bits, self.real, f"{weight}{SIGNED[bits]}")
        scales, codes = map(self.initializer, lazy)
        how: dict[str, Any] = {"axis": 1} if bits == 8 else {"axis": 1, "block_size": BLOCK[bits]}
        real = self.op("DequantizeLinear", [codes, scales], f"{name}.{UNROUNDED}", **how)
        turned = real if bits == 8 else self.op("Transpose", [real], f"{name}.weight", perm=[1, 0])
        return self.op("MatMul", [x, turned], name)

    def other_rows(self) -> None:
        """Said where a layer begins, which stands for itself, and where tokens become more or fewer."""
        self._bytes.other_rows()

    def rms_norm(self, x: ir.Value, source: str, size: int, eps: float, name: str) -> ir.Value:
        """x over its root mean square along the last axis, times the checkpoint's `source.weight`."""
        return self.op("RMSNormalization", [x, self.weight(f"{source}.weight", (size,))], name, axis=-1, epsilon=eps)

    def add_and_norm(
        self, residual: ir.Value, x: ir.Value, source: str, size: int, eps: float, name: str
    ) -> tuple[ir.Value, ir.Value]:
        """The norm of residual + x, and the sum itself."""
        # in half precision the fused node may add squares up so; on CUDA it does in fp32
        if self.is_standard or (self.real != ir.DataType.FLOAT and not self.fuses):
            total = self.op("Add", [residual, x], f"{name}.residual")
            return self.rms_norm(total, source, size, eps, name), total
        normed, _, _, total = self.op_many(
            "SkipSimplifiedLayerNormalization",
            [residual, x, self.weight(f"{source}.weight", (size,))],
            [name, "", "", f"{name}.residual"],
            CONTRIB,
            epsilon=eps,
        )
        return normed, total

    def attention(self, q: ir.Value, k: ir.Value, v: ir.Value, heads: int, scale: float, name: str) -> ir.Value:
        """Every token of q, k and v [B, tokens, heads * head_dim] sees every other; mixed values of the same shape.

        onnxruntime's own operator asks for cuDNN on CUDA, and the standard one needs memory by the square on the CPU.
        """
        if self.is_standard or self._numbers.on_cuda:
            return self.op("Attention", [q, k, v], name, q_num_heads=heads, kv_num_heads=heads, scale=scale)
        return self.op("MultiHeadAttention", [q, k, v], name, CONTRIB, num_heads=heads, scale=scale)

    def swiglu(self, gate: ir.Value, up: ir.Value, name: str) -> ir.Value:
        """silu(gate) * up."""
        sigmoid = self.op("Sigmoid", [gate], f"{name}.sigmoid")
        return self.op("Mul", [self.op("Mul", [gate, sigmoid], f"{name}.silu"), up], name)

    def cast(self, x: ir.Value, dtype: ir.DataType, name: str) -> ir.Value:
        return self.op("Cast", [x], name, to=int(dtype))

    def as_real(self, x: ir.Value, dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
        """x, which is of `dtype`, in the graph's own type."""
        return x if dtype == self.real else self.cast(x, self.real, f"{x.name}.{self.real.name.lower()}")

    def as_float(self, x: ir.Value) -> ir.Value:
        """x, which is of the graph's own type, in fp32."""
        return x if self.real == ir.DataType.FLOAT else self.cast(x, ir.DataType.FLOAT, f"{x.name}.float")
