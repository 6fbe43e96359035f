"""Element-wise layers, and those whose gradient differs when they work in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from siamese_proto.graph.ir import LayerContext, Shape
from siamese_proto.layers.base import Layer, RunState
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


class ElementWise(Layer):
    """A layer that computes each element of its top from the same element of its bottom.

    If `overwrites` is set, the layer may write its top over the bottom, because nothing else reads the bottom.
    """

    overwrites = False

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return [bottoms[0]]

    def rows_independent(self) -> bool:
        return True


class ReadsBottomBack(ElementWise):
    """An element-wise layer whose Caffe original reads its bottom again in the backward pass.

    In place, the bottom then holds the top, and the gradient is that of `slope`; otherwise it is the derivative of
    `value`.
    """

    def __init__(self, message: schema.LayerParameter, context: LayerContext) -> None:
        self.is_in_place = list(message.bottom) == list(message.top)
        super().__init__(message, context)

    def value(self, x: Tensor) -> Tensor:
        """Compute the top."""
        raise NotImplementedError(f"layer type {self.type} has no value")

    def slope(self, y: Tensor) -> Tensor:
        """Return the factor of the top's gradient when bottom and top both hold y."""
        raise NotImplementedError(f"layer type {self.type} has no slope")

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        if not self.is_in_place:
            return [self.value(bottoms[0])]
        from siamese_proto.layers.functional.element_wise import with_slope

        y = self.value(bottoms[0].detach())
        return [with_slope(bottoms[0], y, self.slope(y))]
