"""Im2col: the windows of a convolution as channels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import Shape
from siamese_proto.layers.base import RunState, canonical_axis, layer
from siamese_proto.layers.convolution import Windowed
from siamese_proto.layers.torch_source import Source, call, expression, same
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


@layer("Im2col")
class Im2col(Windowed):
    """`y[n, (c, *k), t] = x[n, c, stride t + dilation k - pad]`, 0 in the pad, as a Convolution multiplies it.

    (N, C, *S) -> (N, C x prod kernel, *T), T as in Convolution; with `axis` a, N stands for the first a axes
    Caffe: im2col_layer.cpp
    """

    def read(self, message: schema.LayerParameter) -> None:
        super().read(message)
        multiplied = ("num_output", "bias_term", "group", "weight_filler", "bias_filler")
        self.unused = [f"convolution_param.{name}" for name in multiplied if message.convolution_param.HasField(name)]

    def unused_fields(self) -> Sequence[str]:
        return self.unused

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        lead, channels, spatial = self.parted(bottoms[0])
        return [(*lead, channels * prod(self.windows(len(spatial))[0]), *self.slid(spatial))]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        from siamese_proto.layers.functional.pooling import windows_as_channels

        x = bottoms[0]
        axis = canonical_axis(self.axis, x.shape)
        kernel, stride, dilation, pads = self._each_way(tuple(x.shape[axis + 1 :]))
        return [windows_as_channels(x, axis, kernel, stride, pads, dilation)]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        axis = canonical_axis(self.axis, bottoms[0])
        spatial = bottoms[0][axis + 1 :]
        if axis == 1 and len(spatial) == 2 and not any(self.overhang(spatial)):
            kernel, stride, pad, dilation = (same(sizes) for sizes in self.windows(2))
            settings = {"dilation": (dilation, 1), "padding": (pad, 0), "stride": (stride, 1)}
            unfolded = call("functional.unfold", "{0}", kernel, **settings)
            return expression(f"{unfolded}.unflatten(2, {self.slid(spatial)})")
        kernels, strides, dilations, pads = self._each_way(spatial)
        windows = call("windows_as_channels", "{0}", axis, kernels, strides, pads, dilations)
        return expression(windows, "functional.pooling.windows_as_channels")

    def _each_way(self, spatial: Shape) -> tuple[Shape, Shape, Shape, tuple[tuple[int, int], ...]]:
        """Kernel, stride, dilation, and the pads before and after, of each dimension."""
        kernel, stride, pad, dilation = self.windows(len(spatial))
        return kernel, stride, dilation, tuple((p, p + o) for p, o in zip(pad, self.overhang(spatial), strict=True))

    def check_rank(self, bottom: Shape, rank: int) -> None:
        if rank < 1:
            raise GraphError(
                f"a bottom of shape {bottom} has no dimensions after the channels (axis {self.axis}) "
                "for windows to slide over",
                field="bottom[0]",
            )
