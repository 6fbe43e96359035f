"""Deconvolution: the transposed convolution."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import Shape
from siamese_proto.layers.base import layer
from siamese_proto.layers.convolution import PAD, Convolution, over_one

if TYPE_CHECKING:
    from siamese_proto.layers.convolution import Operation


@layer("Deconvolution")
class Deconvolution(Convolution):
    """`y[n, o, stride s + dilation k - pad] = b[o] + sum over c, s, k of w[c, o, k] x[n, c, s]`, in up to 3 dimensions.

    (N, C, *S) -> (N, num_output, *T), T = stride (S - 1) + dilation (kernel - 1) + 1 - 2 pad;
    several bottoms and `axis` as in Convolution.  weight (C, num_output / group, *kernel), bias (num_output,)
    Caffe: base_conv_layer.cpp, deconv_layer.cpp
    """

    torch_names = ("nn.ConvTranspose", "functional.conv_transpose")

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        return sum(prod(bottom) for bottom in bottoms) * prod(self.param_shapes(bottoms)[0][1:])

    def weighed(self, channels: int) -> Shape:
        return channels, self.num_output // self.group

    def overhang(self, spatial: Shape) -> Shape:
        return (0,) * len(spatial)

    def convolved(self, spatial: Shape) -> Shape:
        sizes = []
        for i, (size, kernel, stride, pad, dilation) in enumerate(
            zip(spatial, *self.windows(len(spatial)), strict=True)
        ):
            whole = stride * (size - 1) + dilation * (kernel - 1) + 1
            if whole <= 2 * pad:
                raise GraphError(
                    f"pad {pad} on both sides removes all {whole} values that kernel size {kernel} and stride {stride} "
                    f"make from a bottom of size {size}",
                    field=self.field(PAD, i, len(spatial)),
                )
            sizes.append(whole - 2 * pad)
        return tuple(sizes)

    def operation(self, rank: int) -> Operation:
        from torch.nn import functional

        if rank == 0:
            return over_one(functools.partial(functional.conv_transpose1d, groups=self.group))
        spread = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[rank - 1]
        _, stride, pad, dilation = self.windows(
            rank
        )  # one size per dimension, since exporters do not accept a single size for all
        return lambda x, weight, bias: spread(x, weight, bias, stride, pad, (0,) * rank, self.group, dilation)
