"""Counts the decoder's nodes, for the table in docs/export.md."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx_ir as ir

from export.checkpoint.weights import Weights
from export.graph.decoder import decoder_graph
from export.precision import FP32, Numbers
from glmserve.contract import DecoderGraph
from glmserve.model.config import Checkpoint

DEMO = Path(__file__).resolve().parents[2] / "demo" / "checkpoint"
LAYER = 1
"""One between others: the first begins with a norm that adds nothing, the last ends with a sum."""
COLUMNS = {
    "fp32": (FP32, False),
    "fp16": (Numbers(ir.DataType.FLOAT16), False),
    "int8": (Numbers(bits=8), False),
    "int4": (Numbers(bits=4), False),
    "fp16, bf16 on cuda": (Numbers(ir.DataType.BFLOAT16, fuses=True), False),
    "int8, int4 on cuda": (Numbers(ir.DataType.BFLOAT16, bits=4, fuses=True), False),
    "standard": (Numbers(ir.DataType.BFLOAT16), True),
}


def decoder(numbers: Numbers, is_standard: bool) -> ir.Model:
    """The demo's decoder, its weights not read."""
    return decoder_graph(Checkpoint.read(DEMO), Weights.open(DEMO), numbers, is_standard)


def layer_counts(model: ir.Model) -> Counter[str]:
    """How many nodes of each operator one layer has; a node that writes KV has the name of the buffer."""
    buffers = [name for group in (DecoderGraph.DECODED, DecoderGraph.CHUNK) for name in group.present(LAYER)]
    own = [node for node in model.graph if str(node.name).startswith(f"layers.{LAYER}.") or node.name in buffers]
    return Counter(node.op_type for node in own)


def layer_table() -> str:
    """A row for each operator of a decoder layer, a column for each way to store it."""
    counts = {title: layer_counts(decoder(*how)) for title, how in COLUMNS.items()}
    kinds = sorted({kind for column in counts.values() for kind in column})
    rows = [f"| operator | {' | '.join(counts)} |", f"|---|{'---|' * len(counts)}"]
    for kind in kinds:
        rows.append(f"| `{kind}` | {' | '.join(str(column[kind] or '') for column in counts.values())} |")
    rows.append(f"| all | {' | '.join(str(column.total()) for column in counts.values())} |")
    return "\n".join(rows)
