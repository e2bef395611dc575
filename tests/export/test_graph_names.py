"""The decoder's nodes have names of one grammar, and none that a reader would ask about."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from graph_table import COLUMNS, decoder, layer_counts

PART = r"[a-z][a-z0-9_]*"
NAME = re.compile(
    rf"""(?x)
    token | logits | logprob_(values|ids) | image_features\.b?float16 # of the contract
    | (decoded|chunk)_ (present_(key|value)\.\d+ | index\.{PART})     # which group of tokens, of the contract too
    | layers\.\d+ \. (attn|mlp|residual) (\.{PART})*                 # which layer, which half, what
    | (embed|rope|head|sampler|logprobs) (\.{PART})*
    """
)
APART_AND_TOGETHER = {"Concat": 2, "Gather": 3, "Reshape": 2, "Squeeze": 1, "Unsqueeze": 1}
"""What taking tokens apart into decoded rows and chunks costs a layer, and laying them side by side again."""

ROUNDING = {"int8": 4 * ("Abs", "ReduceMax", "Mul", "QuantizeLinear") + ("Shape", "Expand") + 6 * ("Mul",)}
"""What bytes on both sides cost a layer: four inputs are rounded, row by row, and six products are scaled back."""


@pytest.mark.parametrize("title", list(COLUMNS))
def test_every_node_is_named_by_where_it_stands_and_what_it_gives(title: str) -> None:
    nodes = list(decoder(*COLUMNS[title]).graph)
    assert not [node.name for node in nodes if not NAME.fullmatch(str(node.name))]
    assert len({node.name for node in nodes}) == len(nodes)
    values = [output.name for node in nodes for output in node.outputs if output.name]
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("title", [title for title in COLUMNS if title != "standard"])
def test_a_layer_turns_and_casts_nothing_and_moves_tokens_for_attention_only(title: str) -> None:
    counts = layer_counts(decoder(*COLUMNS[title])) - Counter(ROUNDING.get(title, ()))
    assert not counts.keys() & {"Transpose", "Cast", "Expand"}
    has_one_product = title.endswith("on cuda")  # of q, k and v, which then need not be laid side by side
    assert {kind: counts[kind] for kind in APART_AND_TOGETHER} == APART_AND_TOGETHER | {"Concat": 2 - has_one_product}
    assert counts["GroupQueryAttention"] == 2 and counts.total() <= 32


def test_a_standard_layer_turns_weights_and_heads_and_casts_nothing() -> None:
    counts = layer_counts(decoder(*COLUMNS["standard"]))
    weights, groups, heads = counts["MatMul"], 2, 4
    assert counts["Transpose"] == weights + groups * heads and not counts["Cast"]
