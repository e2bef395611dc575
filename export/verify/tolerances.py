"""How far a build of each precision may be from transformers in fp32."""

from __future__ import annotations

from dataclasses import dataclass

from export.precision import KvPrecision, Precision
from glmserve.build.manifest import Manifest


@dataclass(frozen=True)
class Tolerances:
    """The worst error of features and of logits, the worst KL divergence of a next token's probabilities in nats, and
    the shares of greedy tokens (each after the right ones) and of whole answers that may change.

    `is_relative`: errors are measured against the length of the vector they are an error of, not absolutely.
    """

    features: float
    logits: float
    divergence: float
    tokens: float
    answers: float
    is_relative: bool = True


ALLOWED = {
    Precision.FP32: Tolerances(1e-4, 1e-4, 1e-6, 0.0, 0.0, is_relative=False),
    Precision.FP16: Tolerances(5e-3, 1e-2, 1e-3, 0.01, 0.05),
    Precision.BF16: Tolerances(0.04, 0.08, 0.05, 0.02, 0.2),
    Precision.INT8: Tolerances(0.05, 0.2, 0.1, 0.02, 0.3),
    Precision.INT4: Tolerances(0.05, 0.5, 0.5, 0.06, 1.0),  # an answer of many tokens hardly stays as it is
}


def tolerances_of(manifest: Manifest) -> Tolerances:
    """What a build may be off by; with KV in 8 bits at least as much as with weights in 8 bits."""
    precision = Precision(manifest.precision)
    if manifest.kv == KvPrecision.INT8 and precision is not Precision.INT4:
        precision = Precision.INT8
    return ALLOWED[precision]
