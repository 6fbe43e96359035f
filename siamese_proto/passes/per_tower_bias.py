"""A bias whose gradient is summed tower by tower."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor


def add_bias(x: Tensor, bias: Tensor, rows: Sequence[int]) -> Tensor:
    """Return `x + bias` for x (sum of rows, *S, C) and bias (C,), whose gradient is summed by tower."""
    return cast(Tensor, BiasRule.apply(x, bias, tuple(rows)))  # type: ignore[no-untyped-call]  # torch leaves apply without types


class BiasRule(torch.autograd.Function):
    """`dL/dbias = sum over towers of (sum over rows of dL/dy)`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, rows: tuple[int, ...]) -> Tensor:
        ctx.rows = rows
        return x + bias

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        axes = tuple(range(gradient.dim() - 1))
        sums = [tower.sum(axes) for tower in torch.split_with_sizes(gradient, ctx.rows)]
        return gradient, torch.stack(sums).sum(0), None
