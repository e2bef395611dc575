"""Writes the sampler into the decoder's graph, so that only token ids leave the device.

Gumbel-max: argmax(log p + g) with g = -log(-log u) draws from p exactly. The candidates are the likeliest 64 tokens;
temperature, top-k and top-p narrow them in the order `transformers` uses.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.graph import GraphWriter, graph_input
from glmserve.contract import DecoderGraph as Names
from glmserve.limits import SAMPLER_CANDIDATES

_EXCLUDED = -1e30  # finite, so that no candidate can turn into NaN


def sample(g: GraphWriter, logits: ir.Value, vocabulary: int) -> tuple[list[ir.Value], ir.Value]:
    """The sampler's own inputs and the token i64 [B, 1] it draws from logits f32 [B, vocabulary].

    `temperature` and `top_p` f32 [B, 1], `top_k` i64 [B, 1] (1 is greedy), `uniform` f32 [B, candidates] in (0, 1).
    """
    candidates = min(SAMPLER_CANDIDATES, vocabulary)
    temperature = graph_input(Names.TEMPERATURE, ir.DataType.FLOAT, ["B", 1])
    top_k = graph_input(Names.TOP_K, ir.DataType.INT64, ["B", 1])
    top_p = graph_input(Names.TOP_P, ir.DataType.FLOAT, ["B", 1])
    uniform = graph_input(Names.UNIFORM, ir.DataType.FLOAT, ["B", candidates])

    count = g.constant([candidates], np.int64)
    values, ids = g.op_many("TopK", [logits, count], ["sampler.values", "sampler.ids"], axis=-1)
    excluded = g.constant(_EXCLUDED, np.float32)
    ranks = g.constant(np.arange(candidates)[None, :], np.int64)
    scaled = g.op("Div", [values, temperature], "sampler.scaled")
    in_top_k = g.op("Less", [ranks, top_k], "sampler.in_top_k")
    scaled = g.op("Where", [in_top_k, scaled, excluded], "sampler.narrowed")
    likelihood = g.op("Softmax", [scaled], "sampler.likelihood", axis=-1)
    before = g.op("CumSum", [likelihood, g.constant(1, np.int64)], "sampler.mass_before", exclusive=1)
    in_top_p = g.op("Less", [before, top_p], "sampler.in_top_p")

    inner = g.op("Neg", [g.op("Log", [uniform], "sampler.log_uniform")], "sampler.exponential")
    gumbel = g.op("Neg", [g.op("Log", [inner], "sampler.log_exponential")], "sampler.gumbel")
    noisy = g.op("Add", [scaled, gumbel], "sampler.noisy")
    score = g.op("Where", [in_top_p, noisy, excluded], "sampler.score")
    choice = g.op("ArgMax", [score], "sampler.choice", axis=-1, keepdims=1)
    token = g.op("GatherElements", [ids, choice], Names.TOKEN, axis=-1)
    return [temperature, top_k, top_p, uniform], token
