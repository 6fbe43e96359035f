"""Element-wise functions whose backward pass reads a blob that the layer has overwritten."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from siamese_proto.layers.functional.once import differentiable_once


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


def softplus_in_place(x: Tensor) -> Tensor:
    """`y = log(1 + exp(x))` with the gradient that Caffe has in place: the slope at y, not at x."""
    y = functional.softplus(x.detach(), threshold=50)
    return with_slope(x, y, y.sigmoid())


def clip_in_place(x: Tensor, low: float, high: float) -> Tensor:
    """`y = max(low, min(high, x))` with the gradient that Caffe has in place: it passes wherever y is within both."""
    y = x.detach().clamp(max=high).clamp(min=low)
    return with_slope(x, y, ((y >= low) & (y <= high)).to(y.dtype))
