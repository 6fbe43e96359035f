"""The windows of a convolution laid out as channels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import Shape
from siamese_proto.layers.base import RunState, canonical_axis, layer
from siamese_proto.layers.convolution import Windowed
from siamese_proto.layers.source import Source, call, expression, same
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


@layer("Im2col")
class Im2col(Windowed):
    """`y[n, (c, *k), t] = x[n, c, stride t + dilation k - pad]`, 0 in the pad: what a Convolution multiplies.

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
        from torch.nn import functional

        x = bottoms[0]
        axis = canonical_axis(self.axis, x.shape)
        rank = x.dim() - axis - 1
        kernels, strides, pads, dilations = self.windows(rank)
        x = self.filled(x, rank)
        if any(pads):
            x = functional.pad(x, [pad for pad in reversed(pads) for _ in range(2)])
        for i, (kernel, stride, dilation) in enumerate(zip(kernels, strides, dilations, strict=True)):
            x = x.unfold(axis + 1 + i, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
        counts = range(axis + 1, axis + 1 + rank)
        inside = range(axis + 1 + rank, axis + 1 + 2 * rank)
        windows = x.permute(*range(axis + 1), *inside, *counts)  # (*N, C, *kernel, *T)
        return [windows.flatten(axis, axis + rank)]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        axis, spatial = canonical_axis(self.axis, bottoms[0]), bottoms[0][-2:]
        if axis != 1 or len(bottoms[0]) != 4 or any(self.overhang(spatial)):
            return None
        kernel, stride, pad, dilation = (same(sizes) for sizes in self.windows(2))
        settings = {"dilation": (dilation, 1), "padding": (pad, 0), "stride": (stride, 1)}
        unfolded = call("functional.unfold", "{0}", kernel, **settings)
        return expression(f"{unfolded}.unflatten(2, {self.slid(spatial)})")

    def check_rank(self, bottom: Shape, rank: int) -> None:
        if rank < 1:
            raise GraphError(
                f"a bottom of shape {bottom} has no dimensions after the channels (axis {self.axis}) "
                "for windows to slide over",
                field="bottom[0]",
            )
