"""The engines of a build: which there are, what they are made from, and what each will take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from export.checkpoint.weights import Weights
from export.graph.decoder import Part, decoder_graph
from export.graph.vision_encoder import vision_graph
from export.graph.vision_profile import profile_of
from export.precision import Numbers
from export.rtx.order import EngineOrder
from export.rtx.parts import parts_of, peak_bytes, plan_bytes, title_of
from export.rtx.profiles import decoder_sizes
from glmserve.build.rtx_engines import VISION_PLAN
from glmserve.model.config import Checkpoint


@dataclass(frozen=True)
class Engine:
    """One engine to be built: its plan's name, what it is in words, and its graph."""

    plan: str
    title: str
    model: ir.Model
    shapes: dict[str, Any]
    attentions: int

    @property
    def weights(self) -> int:
        """Bytes of its weights."""
        return _weight_bytes(self.model)


def engines_of(
    checkpoint: Checkpoint, weights: Weights, numbers: Numbers, order: EngineOrder
) -> tuple[list[Engine], Engine]:
    """The decoder's engines in order, and the image encoder's.

    Most of their weights are those that lie beside the build's own graphs; those that a graph holds itself, such as
    short biases, come from `weights`.

    Raises DoesNotFit when the memory does not do for the smallest part.
    """
    text, sizes = checkpoint.text, order.sizes.cut_to(checkpoint.text)

    def graph(part: Part) -> ir.Model:
        return decoder_graph(checkpoint, weights, numbers, is_standard=True, part=part, context=sizes.context)

    parts = parts_of(text.layers, lambda part: _weight_bytes(graph(part)), order)
    words = decoder_sizes(sizes, text)
    decoder = [
        Engine(f"decoder.{index:02}.plan", title_of(part), graph(part), words, 2 * (part.last - part.first))
        for index, part in enumerate(parts)
    ]
    # rounded, its joined q, k and v would be unpacked for every batch of images
    encoder = vision_graph(checkpoint, weights, replace(numbers, bits=None), is_standard=True)
    vision = Engine(VISION_PLAN, "image encoder", encoder, dict(profile_of(checkpoint)), checkpoint.vision.depth)
    return decoder, vision


def forecast(engines: list[Engine]) -> tuple[dict[str, int], int]:
    """About how large each plan is, by its name, and how much memory the costliest takes to build."""
    return {engine.plan: plan_bytes(engine.weights) for engine in engines}, max(
        peak_bytes(engine.weights) for engine in engines
    )


def _weight_bytes(model: ir.Model) -> int:
    return sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
