"""Convolution with MAX Pooling behind it, a few rows at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from siamese_proto.graph.ir import LayerContext, Shape
from siamese_proto.layers.convolution import Convolution
from siamese_proto.layers.pooling import LeanPooling
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor

    from siamese_proto.layers.convolution import Operation
    from siamese_proto.layers.torch_source import Source

_PARTED_FROM = 1_000_000  # numbers between the two, below which the memory is not worth the calls
# Numbers between the two at once, as measured, of one thread and of several: what a core's cache holds, and enough to
# divide among threads, which wait for one another at the end of each call.
_AT_ONCE = {False: 400_000, True: 2_000_000}
_FEW_WEIGHTS = 50_000  # more would be laid out anew and summed up once for every few rows


class PooledConvolution(Convolution):
    """A Convolution and the Pooling behind it as one layer: what lies between is never whole.

    (N, C, H, W) -> (N, num_output, OH, OW)
    """

    def __init__(self, message: schema.LayerParameter, context: LayerContext, pooling: LeanPooling) -> None:
        super().__init__(message, context)
        self.pooling = pooling

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return self.pooling.top_shapes(super().top_shapes(bottoms))

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        return None  # source is written of nets as they were written

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        return super().multiply_adds(bottoms, super().top_shapes(bottoms))

    def way(self, bottom: Shape) -> Operation:
        import torch

        from siamese_proto.layers.functional.transforms import is_ordinary

        convolve, pooling = super().way(bottom), self.pooling
        if torch.compiler.is_compiling():  # sizes may be symbols, of which nothing is to be asked
            return lambda x, weight, bias: pooling.greatest(convolve(x, weight, bias))
        between = math.prod(super().top_shapes([bottom])[0])
        is_small = between < _PARTED_FROM or math.prod(self.param_shapes([bottom])[0]) > _FEW_WEIGHTS

        def convolve_and_pool(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            at_once = between if is_small else _AT_ONCE[torch.get_num_threads() > 1]
            # Where nothing is kept for a backward pass, what lies between is soon gone anyway.
            if between <= at_once or not (torch.is_grad_enabled() and x.is_cpu and is_ordinary()):
                return pooling.greatest(convolve(x, weight, bias))
            parts = torch.split(x, max(1, len(x) * at_once // between))
            return torch.cat([pooling.lean(convolve(part, weight, bias)) for part in parts])

        return convolve_and_pool
