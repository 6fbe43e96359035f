"""A bias whose gradient is summed part by part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor


def add_bias(x: Tensor, bias: Tensor, rows: Sequence[int]) -> Tensor:
    """`x + bias` for x (sum of rows, *S, C) and bias (C); each part sums the gradients of its rows by itself."""
    return cast(Tensor, BiasRule.apply(x, bias, tuple(rows)))  # type: ignore[no-untyped-call]  # torch leaves apply without types


class BiasRule(torch.autograd.Function):
    """`dL/dbias = sum over parts of (sum over rows of dL/dy)`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, rows: tuple[int, ...]) -> Tensor:
        ctx.rows = rows
        return x + bias

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        axes = tuple(range(gradient.dim() - 1))
        parts = [part.sum(axes) for part in torch.split_with_sizes(gradient, ctx.rows)]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return gradient, total, None
