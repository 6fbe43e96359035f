"""Convolution with MAX Pooling behind it, a few rows at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from siamese_proto.graph.ir import LayerContext, Shape
from siamese_proto.layers.base import RunState
from siamese_proto.layers.convolution import Convolution
from siamese_proto.layers.pooling import LeanPooling
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor

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

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        import torch

        def pooled(rows: Tensor) -> Tensor:
            return self.pooling.forward(super(PooledConvolution, self).forward([rows], params, run), (), run)[0]

        x = bottoms[0]
        if not x.is_cpu or torch.compiler.is_compiling() or params[0].numel() > _FEW_WEIGHTS:
            return [pooled(x)]
        between = len(x) * self.num_output * math.prod(self.convolved(tuple(x.shape[2:])))
        parts = min(len(x), -(-between // _AT_ONCE[torch.get_num_threads() > 1]))
        if parts < 2:
            return [pooled(x)]
        return [torch.cat([pooled(rows) for rows in torch.split(x, -(-len(x) // parts))])]
