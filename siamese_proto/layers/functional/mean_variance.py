"""Mean and variance normalisation with Caffe's gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from siamese_proto.layers.functional.once import differentiable_once


def normalize(x: Tensor, axes: Sequence[int], eps: float) -> Tensor:
    """x less its mean over `axes`, divided by its standard deviation plus eps; of any shape."""
    return cast(Tensor, MeanVarianceRule.apply(x, tuple(axes), eps))  # type: ignore[no-untyped-call]  # torch leaves apply without types


class MeanVarianceRule(torch.autograd.Function):
    """`y = (x - mean) / (s + eps)`, `dL/dx = (g - mean of g - y mean of (y g)) / (s + eps)` with g = dL/dy.

    The derivative has `(s + eps) / s` as one more factor of the last term: Caffe leaves it out, and so is finite where
    all x are equal. (mvn_layer.cpp)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
        variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        divisor = variance.sqrt_().add_(eps)
        y: Tensor = (x - mean).div_(divisor)
        ctx.save_for_backward(y, divisor)
        ctx.axes = axes
        return y

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        y, divisor = ctx.saved_tensors
        along = (y * gradient).mean(ctx.axes, keepdim=True)
        return (gradient - gradient.mean(ctx.axes, keepdim=True)).addcmul_(y, along, value=-1).div_(divisor), None, None
