"""Permute: the axes of a blob in another order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import Shape
from siamese_proto.layers.base import Layer, RunState, layer
from siamese_proto.layers.settings.user_settings import binary_settings
from siamese_proto.layers.torch_source import Source, expression
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor

STORED_NUMBER = 202  # of permute_param in the fork that it comes from


@layer("Permute")
class Permute(Layer):
    """`y[i_order0, i_order1, ..] = x[i_0, i_1, ..]`: axis k of y is axis `order[k]` of x.

    (S_0, S_1, ..) -> (S_order0, S_order1, ..)
    Axes that `order` does not name follow behind, in their order.
    Not in BVLC Caffe.
    """

    def read(self, message: schema.LayerParameter) -> None:
        stored = binary_settings(message, STORED_NUMBER)
        settings = message.permute_param
        if stored is not None and not message.HasField("permute_param"):
            settings = schema.PermuteParameter.FromString(stored)
        self.order = tuple(settings.order)
        for index, axis in enumerate(self.order):
            if axis in self.order[:index]:
                raise GraphError(f"order names axis {axis} twice", field=f"permute_param.order[{index}]")

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        for index, axis in enumerate(self.order):
            if axis >= len(bottoms[0]):
                raise GraphError(
                    f"axis {axis} does not exist in a bottom of shape {bottoms[0]}",
                    field=f"permute_param.order[{index}]",
                )
        return [tuple(bottoms[0][axis] for axis in self._axes(len(bottoms[0])))]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        return [bottoms[0].permute(self._axes(bottoms[0].dim())).contiguous()]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        axes = ", ".join(map(str, self._axes(len(bottoms[0]))))
        return expression(f"{{0}}.permute({axes}).contiguous()")

    def rows_independent(self) -> bool:
        return not self.order or self.order[0] == 0

    def describe(self) -> str:
        return " ".join(map(str, self.order))

    def _axes(self, count: int) -> tuple[int, ...]:
        return (*self.order, *(axis for axis in range(count) if axis not in self.order))
