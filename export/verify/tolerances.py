"""How far a build of each precision may be from transformers in fp32: the one table that every comparison uses."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from export.precision import KvPrecision, Precision
from glmserve.build.manifest import Manifest
from glmserve.model.config import Checkpoint

_DEEP_BLOCKS, _DEEP_LAYERS = 24, 40
PATCHES = 1e-5
"""The worst error of a normalised pixel, which no precision changes."""


@dataclass(frozen=True)
class Tolerances:
    """What a build of one precision may be off by, and pass.

    - `layer`: the worst error of one layer that is given transformers' own input. Always relative.
    - `features`: the worst error of an image's features, behind the whole encoder of a few blocks.
    - `logits`: the worst error of a token's logits, behind the whole decoder of a few layers.
    - `divergence`: the worst KL divergence, in nats, between the probabilities of the next token.
    - `tokens`: the share of greedy tokens that may change, each predicted from the right ones before it.
    - `answers`: the share of greedy answers in which any token may change.
    - `deep_features`, `deep_logits`: the same behind 24 blocks and 40 layers, where more roundings have added up.
    - `is_relative`: `features` and `logits` bound an error vector's length divided by the right vector's length; where
      it is false, they bound each number's absolute error.
    """

    layer: float
    features: float
    logits: float
    divergence: float
    tokens: float
    answers: float
    is_relative: bool = True
    deep_features: float = 0.0
    deep_logits: float = 0.0

    def at(self, blocks: int, layers: int) -> Tolerances:
        """Those of a model of this depth: independent errors add up to the root of their number."""
        features = max(self.features, self.deep_features * math.sqrt(blocks / _DEEP_BLOCKS))
        logits = max(self.logits, self.deep_logits * math.sqrt(layers / _DEEP_LAYERS))
        return replace(self, features=features, logits=logits)


TOLERANCES = {
    Precision.FP32: Tolerances(1e-5, 1e-4, 1e-4, 1e-6, 0.0, 0.0, is_relative=False),
    Precision.FP16: Tolerances(5e-3, 5e-3, 1e-2, 1e-3, 0.01, 0.05),
    Precision.BF16: Tolerances(1e-2, 0.04, 0.08, 0.05, 0.02, 0.2),  # a layer runs in fp32: only its weights are bf16
    Precision.INT8: Tolerances(0.05, 0.05, 0.2, 0.1, 0.02, 0.3, deep_features=0.12),
    # a long answer hardly ever stays the same
    Precision.INT4: Tolerances(0.25, 0.05, 0.5, 0.5, 0.06, 1.0, deep_features=0.12, deep_logits=0.75),
}
"""Set with random weights, which round worse than trained ones, at 2 to 40 layers and 2 to 24 blocks: a layer's worst
error there was 0.039 in int8 and 0.21 in int4, and 24 blocks of the real width came to 0.086.
Logits behind 2, 10 and 40 layers of 256 were off by 0.22, 0.31 and 0.56 in int4, by 0.042, 0.048 and 0.077 in int8."""


def tolerances_of(manifest: Manifest, checkpoint: Checkpoint) -> Tolerances:
    """The tolerances of a build, however it is run: as a whole or layer by layer. An int8 KV cache costs what int8
    weights cost, so they are at least those of int8."""
    precision = Precision(manifest.precision)
    if manifest.kv == KvPrecision.INT8 and precision is not Precision.INT4:
        precision = Precision.INT8
    return TOLERANCES[precision].at(checkpoint.vision.depth, checkpoint.text.layers)
