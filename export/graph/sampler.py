"""Writes the sampler into the decoder's graph, so that only token ids leave the device.

Gumbel-max: argmax(log p + g) with g = -log(-log u) draws from p exactly. The candidates are the likeliest 64 tokens;
temperature, top-k, top-p and min-p narrow them in the order `transformers` uses. What few requests ask for (penalties,
biases, grammars, log-probabilities) works on lists of rows or logits that are empty otherwise, and then costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.graph.builder import declare, graph_input
from export.graph.layers import GraphWriter
from glmserve.contract import DecoderGraph as Names
from glmserve.limits import MAX_LOGPROBS, SAMPLER_CANDIDATES
from glmserve.sampling_parameters import GRAPH_PARAMETERS

_EXCLUDED = -1e30  # finite, so that no candidate can turn into NaN


@dataclass(frozen=True)
class Sampler:
    """The sampler's own graph inputs and outputs."""

    inputs: list[ir.Value]
    outputs: list[ir.Value]


def sample(g: GraphWriter, hidden: ir.Value, logits: ir.Value, vocabulary: int) -> Sampler:
    """Draws a token for each row of logits f32 [N, vocabulary]; `hidden` f32 [N, hidden] is what they were made of.

    The inputs and outputs are described in `contract.DecoderGraph`.
    """
    edit_inputs, edited = _edit(g, logits)
    mask_inputs, allowed = _mask(g, edited, vocabulary)
    candidates = min(SAMPLER_CANDIDATES, vocabulary)
    count = g.constant([candidates], np.int64)
    values, ids = g.op_many("TopK", [allowed, count], ["sampler.values", "sampler.ids"], axis=-1)
    draw_inputs, drawn = _draw(g, values, ids, candidates)
    token = _unless_broken(g, drawn, hidden, values)
    logprob_inputs, logprob_outputs = _log_probabilities(g, logits, drawn, vocabulary)
    return Sampler(
        [*draw_inputs, *edit_inputs, *mask_inputs, *logprob_inputs],
        [declare(token, Names.TOKEN, ir.DataType.INT64, ["N", 1]), *logprob_outputs],
    )


def _edit(g: GraphWriter, logits: ir.Value) -> tuple[list[ir.Value], ir.Value]:
    """Repetition penalty as in CTRL (Keskar et al. 2019): positive logits are divided, the others multiplied. Then
    biases are added."""
    index = graph_input(Names.EDIT_INDEX, ir.DataType.INT64, ["P", 2])
    penalty = graph_input(Names.PENALTY, ir.DataType.FLOAT, ["P"])
    bias = graph_input(Names.BIAS, ir.DataType.FLOAT, ["P"])
    seen = g.op("GatherND", [logits, index], "sampler.seen")
    is_positive = g.op("Greater", [seen, g.constant(0, np.float32)], "sampler.seen_positive")
    less = g.op("Div", [seen, penalty], "sampler.seen_divided")
    more = g.op("Mul", [seen, penalty], "sampler.seen_multiplied")
    lowered = g.op("Where", [is_positive, less, more], "sampler.seen_lowered")
    biased = g.op("Add", [lowered, bias], "sampler.biased")
    return [index, penalty, bias], g.op("ScatterND", [logits, index, biased], "sampler.edited")


def _mask(g: GraphWriter, logits: ir.Value, vocabulary: int) -> tuple[list[ir.Value], ir.Value]:
    """Rows under a grammar keep only the tokens that it allows."""
    rows = graph_input(Names.MASK_ROWS, ir.DataType.INT64, ["R", 1])
    mask = graph_input(Names.MASK, ir.DataType.BOOL, ["R", vocabulary])
    narrowed = g.op("GatherND", [logits, rows], "sampler.masked_rows")  # [R, vocabulary]
    narrowed = g.op("Where", [mask, narrowed, g.constant(_EXCLUDED, np.float32)], "sampler.masked_logits")
    return [rows, mask], g.op("ScatterND", [logits, rows, narrowed], "sampler.allowed")


def _draw(g: GraphWriter, values: ir.Value, ids: ir.Value, candidates: int) -> tuple[list[ir.Value], ir.Value]:
    """A token i64 [N, 1] from candidates in falling order of likelihood."""
    parameters = {
        entry.name: graph_input(entry.name, ir.DataType.from_numpy(np.dtype(entry.graph_dtype)), ["N", 1])
        for entry in GRAPH_PARAMETERS
    }
    uniform = graph_input(Names.UNIFORM, ir.DataType.FLOAT, ["N", candidates])

    excluded = g.constant(_EXCLUDED, np.float32)
    ranks = g.constant(np.arange(candidates)[None, :], np.int64)
    scaled = g.op("Div", [values, parameters["temperature"]], "sampler.scaled")
    in_top_k = g.op("Less", [ranks, parameters["top_k"]], "sampler.in_top_k")
    scaled = g.op("Where", [in_top_k, scaled, excluded], "sampler.narrowed")
    likelihood = g.op("Softmax", [scaled], "sampler.likelihood", axis=-1)
    before = g.op("CumSum", [likelihood, g.constant(1, np.int64)], "sampler.mass_before", exclusive=1)
    in_top_p = g.op("Less", [before, parameters["top_p"]], "sampler.in_top_p")
    likeliest = g.op("Gather", [likelihood, g.constant([0], np.int64)], "sampler.likeliest", axis=1)
    least = g.op("Mul", [likeliest, parameters["min_p"]], "sampler.least")
    in_min_p = g.op("GreaterOrEqual", [likelihood, least], "sampler.in_min_p")
    kept = g.op("And", [in_top_p, in_min_p], "sampler.kept")

    inner = g.op("Neg", [g.op("Log", [uniform], "sampler.log_uniform")], "sampler.exponential")
    gumbel = g.op("Neg", [g.op("Log", [inner], "sampler.log_exponential")], "sampler.gumbel")
    noisy = g.op("Add", [scaled, gumbel], "sampler.noisy")
    score = g.op("Where", [kept, noisy, excluded], "sampler.score")
    choice = g.op("ArgMax", [score], "sampler.choice", axis=-1, keepdims=1)
    drawn = g.op("GatherElements", [ids, choice], "sampler.drawn", axis=-1)
    return [*parameters.values(), uniform], drawn


def _unless_broken(g: GraphWriter, drawn: ir.Value, hidden: ir.Value, values: ir.Value) -> ir.Value:
    """-1 instead of the token where a row's numbers are NaN or infinite: anything finite times 0 adds up to 0.

    Each sum is tested by itself: TensorRT for RTX 1.7.1 does not compile a test of both added up.
    """
    last = g.constant([-1], np.int64)
    tests = []
    for value, name in ((hidden, "hidden"), (values, "values")):
        nothing = g.op("Mul", [value, g.constant(0, np.float32)], f"sampler.{name}_times_0")
        zero = g.op("ReduceSum", [nothing, last], f"sampler.{name}_zero", keepdims=1)
        tests.append(g.op("IsNaN", [zero], f"sampler.{name}_is_broken"))
    is_broken = g.op("Or", tests, "sampler.is_broken")
    return g.op("Where", [is_broken, g.constant(-1, np.int64), drawn], Names.TOKEN)


def _log_probabilities(
    g: GraphWriter, logits: ir.Value, drawn: ir.Value, vocabulary: int
) -> tuple[list[ir.Value], list[ir.Value]]:
    """log softmax of the model's own logits, for the drawn token and the likeliest, of the rows that ask for it."""
    rows = graph_input(Names.LOGPROB_ROWS, ir.DataType.INT64, ["Q"])
    count = min(MAX_LOGPROBS, vocabulary)
    own = g.op("Gather", [logits, rows], "logprobs.logits", axis=0)  # [Q, vocabulary]
    own = g.op("LogSoftmax", [own], "logprobs.all", axis=-1)
    best, best_ids = g.op_many(
        "TopK", [own, g.constant([count], np.int64)], ["logprobs.best", "logprobs.best_ids"], axis=-1
    )
    token = g.op("Gather", [drawn, rows], "logprobs.token", axis=0)  # [Q, 1]
    chosen = g.op("GatherElements", [own, token], "logprobs.chosen", axis=-1)
    values = g.op("Concat", [chosen, best], Names.LOGPROB_VALUES, axis=-1)
    ids = g.op("Concat", [token, best_ids], Names.LOGPROB_IDS, axis=-1)
    shape: list[int | str] = ["Q", 1 + count]
    declare(values, Names.LOGPROB_VALUES, ir.DataType.FLOAT, shape)
    return [rows], [values, declare(ids, Names.LOGPROB_IDS, ir.DataType.INT64, shape)]
