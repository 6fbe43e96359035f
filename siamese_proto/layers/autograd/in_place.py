"""The gradient of layers that have overwritten the blob their backward pass reads."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from siamese_proto.layers.autograd.once import differentiable_once


def with_slope(x: Tensor, y: Tensor, slope: Tensor) -> Tensor:
    """`y`, through which `dL/dx = slope dL/dy`; all three of one shape."""
    return cast(Tensor, SlopeRule.apply(x, y, slope))  # type: ignore[no-untyped-call]  # torch leaves apply without types


class SlopeRule(torch.autograd.Function):
    """`dL/dx = slope dL/dy`, whatever made y of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return y.view_as(y)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None, None
