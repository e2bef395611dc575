"""The decoder's engines as one: contexts that run one after another on one stream, each on the one before's output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from glmserve.build.rtx_engines import NEXT_RESIDUAL, RESIDUAL
from glmserve.engine.runtime.rtx.engine import PlanEngine, Shape, WorkMemory
from glmserve.engine.runtime.rtx.stream import Stream

BETWEEN = ("residual.even", "residual.odd")
"""Two places that the engines pass their result on in, in turns."""


class Chain:
    """One context for each engine; its addresses stay, so that what it runs can be captured."""

    def __init__(
        self, engines: Sequence[PlanEngine], stream: Stream, work: WorkMemory, has_few_shapes: bool = False
    ) -> None:
        self._contexts = [engine.context(has_few_shapes) for engine in engines]
        self._stream, self._work = stream, work

    def address(self, addresses: Mapping[str, int]) -> None:
        """Sets where everything lies that any of the engines takes or gives."""
        places = [addresses[name] for name in BETWEEN] if len(self._contexts) > 1 else [0, 0]
        for index, context in enumerate(self._contexts):
            between = {RESIDUAL: places[(index + 1) % 2], NEXT_RESIDUAL: places[index % 2]}
            context.address({**addresses, **between})

    def shape(self, shapes: Mapping[str, Shape]) -> None:
        """Sets the shapes of a step, and sees that there is memory to work in."""
        between: dict[str, Shape] = {}
        for context in self._contexts:
            context.shape({**shapes, **between})
            if NEXT_RESIDUAL in context.engine.outputs:
                between = {RESIDUAL: context.shape_of(NEXT_RESIDUAL)}
        self._work.give(self._contexts)

    @property
    def is_capturable(self) -> bool:
        return all(context.is_capturable(self._stream.handle) for context in self._contexts)

    def run(self) -> None:
        """Puts all engines on the stream, in order."""
        for context in self._contexts:
            context.run(self._stream.handle)
