"""The decoder's nodes have names of one grammar, and none that a reader would ask about."""

from __future__ import annotations

import re

import pytest
from graph_table import COLUMNS, decoder, layer_counts

PART = r"[a-z][a-z0-9_]*"
NAME = re.compile(
    rf"""(?x)
    token | logits | logprob_(values|ids) | present_(key|value)\.\d+ | image_features\.bfloat16  # of the contract
    | layers\.\d+ \. (attn|mlp|residual) (\.{PART})*   # which layer, which half, what
    | (embed|rope|rows|head|sampler|logprobs) (\.{PART})*
    """
)


@pytest.mark.parametrize("title", list(COLUMNS))
def test_every_node_is_named_by_where_it_stands_and_what_it_gives(title: str) -> None:
    nodes = list(decoder(*COLUMNS[title]).graph)
    assert not [node.name for node in nodes if not NAME.fullmatch(str(node.name))]
    assert len({node.name for node in nodes}) == len(nodes)
    values = [output.name for node in nodes for output in node.outputs if output.name]
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("title", [title for title in COLUMNS if title != "standard"])
def test_a_layer_turns_and_casts_nothing(title: str) -> None:
    counts = layer_counts(decoder(*COLUMNS[title]))
    assert not counts.keys() & {"Transpose", "Cast", "Reshape", "Unsqueeze", "Squeeze", "Concat", "Expand"}
    assert counts["GroupQueryAttention"] == 1 and counts.total() <= 25


def test_a_standard_layer_turns_weights_and_heads_and_casts_nothing() -> None:
    counts = layer_counts(decoder(*COLUMNS["standard"]))
    weights, heads = counts["MatMul"], 4
    assert counts["Transpose"] == weights + heads and not counts["Cast"]
