"""Tile and Crop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import Shape, exactly
from siamese_proto.layers.base import Layer, RunState, canonical_axis, layer
from siamese_proto.layers.torch_source import Source, call, expression
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


@layer("Tile")
class Tile(Layer):
    """Repeat the bottom `tiles` times along `axis`; the gradients of the copies add up.

    (.., S, ..) -> (.., tiles S, ..)
    Caffe: tile_layer.cpp
    """

    def read(self, message: schema.LayerParameter) -> None:
        self.axis = message.tile_param.axis
        self.tiles = message.tile_param.tiles
        if not message.tile_param.HasField("tiles"):
            raise GraphError("tiles is missing: set the number of copies", field="tile_param")
        if self.tiles < 1:
            raise GraphError(f"tiles {self.tiles} must be at least 1", field="tile_param.tiles")

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        axis = canonical_axis(self.axis, bottoms[0], "tile_param.axis")
        return [(*bottoms[0][:axis], self.tiles * bottoms[0][axis], *bottoms[0][axis + 1 :])]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        import torch

        return [torch.cat([bottoms[0]] * self.tiles, self.axis)]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        axis = canonical_axis(self.axis, bottoms[0])
        counts = (self.tiles if index == axis else 1 for index in range(len(bottoms[0])))
        return expression(call("{0}.repeat", *counts))

    def rows_independent(self) -> bool:
        return self.axis > 0

    def describe(self) -> str:
        return f"{self.tiles} x axis {self.axis}"


@layer("Crop")
class Crop(Layer):
    """Crop bottom 0 to the size of bottom 1 from `axis` on, starting at `offset`: one for all axes, or one per axis.

    x (*A, *B), reference (*R) -> (*A, *R from axis on); only the shape of the reference is read; it gets no gradient
    Caffe: crop_layer.cpp
    """

    bottoms = exactly(2)
    bottom_names = ("input", "blob whose size to take")

    def read(self, message: schema.LayerParameter) -> None:
        self.axis = message.crop_param.axis
        self.offsets = tuple(message.crop_param.offset)

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        starts = self._starts(bottoms[0])
        axis = len(bottoms[0]) - len(starts)
        if len(bottoms[1]) < len(bottoms[0]):
            raise GraphError(
                f"bottom 1 of shape {bottoms[1]} has no axis {len(bottoms[1])}, but bottom 0 of shape {bottoms[0]} has",
                field="bottom[1]",
            )
        for index, start in enumerate(starts, axis):
            if start + bottoms[1][index] > bottoms[0][index]:
                raise GraphError(
                    f"{bottoms[1][index]} values from offset {start} on exceed axis {index}, "
                    f"which has size {bottoms[0][index]}",
                    field=f"crop_param.offset[{index - axis if len(self.offsets) > 1 else 0}]",
                )
        return [(*bottoms[0][:axis], *bottoms[1][axis : len(bottoms[0])])]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        y, reference = bottoms
        starts = self._starts(tuple(y.shape))
        for axis, start in enumerate(starts, y.dim() - len(starts)):
            y = y.narrow(axis, start, reference.shape[axis])
        return [y]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        starts = self._starts(bottoms[0])
        cuts = [":"] * (len(bottoms[0]) - len(starts))
        for axis, start in enumerate(starts, len(cuts)):
            size = f"{{1}}.shape[{axis}]"
            cuts.append(f"{start} : {start} + {size}" if start else f": {size}")
        return expression(f"{{0}}[{', '.join(cuts)}]")

    def rows_independent(self) -> bool:
        return self.axis > 0

    def describe(self) -> str:
        return f"axis {self.axis} offset {', '.join(map(str, self.offsets or (0,)))}"

    def _starts(self, shape: Shape) -> Sequence[int]:
        """Return the offset of each cropped axis, which are the last axes of a bottom of this shape."""
        count = len(shape) - canonical_axis(self.axis, shape, "crop_param.axis")
        if len(self.offsets) > 1 and len(self.offsets) != count:
            raise GraphError(
                f"offset is set {len(self.offsets)} times for the {count} axes from axis {self.axis} on "
                f"of a bottom of shape {shape}: set it once, or once per axis",
                field="crop_param.offset[0]",
            )
        return self.offsets if len(self.offsets) > 1 else (self.offsets or (0,)) * count
