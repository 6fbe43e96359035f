"""Spatial pyramid pooling (He, Zhang, Ren and Sun 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import Shape
from siamese_proto.layers.base import Layer, RunState, layer
from siamese_proto.layers.checks import check_positive
from siamese_proto.layers.pooling import LOWEST, pool_stochastic
from siamese_proto.layers.torch_source import Source, call, expression, shown
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


@layer("SPP")
class SPP(Layer):
    """Pool the image in 1 x 1, 2 x 2, 4 x 4, .. bins, one grid per level, and join the bins of all levels.

    (N, C, H, W) -> (N, C x sum of 4^level) for `pyramid_height` levels, ordered by level, channel, row and column;
    (N, C, 1, 1) for a single level
    With b bins a window is ceil(S / b) wide, and b ceil(S / b) - S is padded: half of it, rounded up, before the image
    and the rest after it. AVE counts the zeros of the pads. `pool` as in Pooling.
    Caffe: spp_layer.cpp
    """

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.spp_param
        self.levels = settings.pyramid_height
        self.method = schema.SPPParameter.PoolMethod.Name(settings.pool)
        check_positive(settings, "pyramid_height", "spp_param")

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if len(bottoms[0]) != 4:
            raise GraphError(
                f"a bottom of shape {bottoms[0]} has {len(bottoms[0])} axes: SPP takes 4, (N, C, H, W)",
                field="bottom[0]",
            )
        batch, channels, *size = bottoms[0]
        for level in range(self.levels):
            for extent in size:
                self._check_bins(extent, 2**level)
        return [(batch, channels, 1, 1) if self.levels == 1 else (batch, channels * (4**self.levels - 1) // 3)]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        import torch

        pooled = [self._pooled(bottoms[0], level, run) for level in range(self.levels)]
        return pooled if self.levels == 1 else [torch.cat([bins.flatten(1) for bins in pooled], 1)]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        if self.method == "STOCHASTIC":
            draws = "self.training" if not self.has_own_phase else repr(self.phase == "TRAIN")
            return expression(f"pyramid_draw({{0}}, {self.levels}, draws={draws})", "functional.pooling.pyramid_draw")
        pooled = call("pyramid_pool", "{0}", self.levels, shown(self.method))
        return expression(pooled, "functional.pooling.pyramid_pool")

    def rows_independent(self) -> bool:
        # The random numbers of a row depend on its index in the batch and on the layer's name.
        return self.method != "STOCHASTIC" or self.phase == "TEST"

    def describe(self) -> str:
        return f"{self.method} {self.levels} level{'' if self.levels == 1 else 's'}"

    def _check_bins(self, size: int, bins: int) -> None:
        window, pad, _ = split_in_bins(size, bins) if size else (0, 0, 0)
        if pad >= window:
            raise GraphError(
                f"a side of {size} is too short for the {bins} bins of level {bins.bit_length()}: windows of {window} "
                f"need a pad of {pad}, which must be less than the window; lower pyramid_height {self.levels}",
                field="spp_param.pyramid_height",
            )
        if pad and self.method == "STOCHASTIC":
            raise GraphError(
                f"pool STOCHASTIC requires pad 0, but a side of {size} in {bins} bins needs a pad of {pad}",
                field="spp_param.pool",
            )

    def _pooled(self, x: Tensor, level: int, run: RunState) -> Tensor:
        """Return the B x B bins of one level, (N, C, B, B)."""
        from torch.nn import functional

        height, top, bottom = split_in_bins(x.shape[2], 2**level)
        width, left, right = split_in_bins(x.shape[3], 2**level)
        window = (height, width)
        if self.method == "STOCHASTIC":
            drawing = run if self.phase == "TRAIN" else None
            return pool_stochastic(x, window, window, drawing, f"{self.key}/{level}")
        if top or left:
            # Caffe starts from the lowest number, not from minus infinity.
            x = functional.pad(x, (left, right, top, bottom), value=LOWEST if self.method == "MAX" else 0.0)
        return functional.max_pool2d(x, window) if self.method == "MAX" else functional.avg_pool2d(x, window)


def split_in_bins(size: int, bins: int) -> tuple[int, int, int]:
    """Return the window size, and the pads before and after, with which exactly `bins` windows cover `size`."""
    window = -(-size // bins)
    missing = window * bins - size
    return window, (missing + 1) // 2, missing // 2
