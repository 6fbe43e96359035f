"""The center loss with the rule by which its centres learn."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from siamese_proto.layers.functional.once import differentiable_once


def center_loss(x: Tensor, labels: Tensor, centers: Tensor) -> Tensor:
    """The loss of embeddings x (N, K) whose classes are labels (N,), whole numbers, with centres (C, K) -> ()."""
    return cast(Tensor, CenterLossRule.apply(x, labels, centers))  # type: ignore[no-untyped-call]  # torch leaves apply without types


class CenterLossRule(torch.autograd.Function):
    """`1 / (2 N) sum of |x_n - c_y(n)|^2`, `dL/dx = (x - c) / N`.

    The gradient of a centre is `sum of (c - x) / (1 + count)` over the rows of its class, whatever comes from above.
    (Wen et al., section 3.2)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, labels: Tensor, centers: Tensor) -> Tensor:
        difference = x - centers.index_select(0, labels)  # (N, K)
        ctx.save_for_backward(difference, labels)
        ctx.classes = len(centers)
        return difference.square().sum() / (2 * x.shape[0])

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        difference, labels = ctx.saved_tensors
        to_centers = None
        if ctx.needs_input_grad[2]:
            sums = difference.new_zeros(ctx.classes, difference.shape[1]).index_add(0, labels, difference)  # (C, K)
            counts = difference.new_ones(ctx.classes).index_add(0, labels, difference.new_ones(len(labels)))  # (C,)
            to_centers = -sums / counts.unsqueeze(1)
        return difference * (gradient / len(difference)), None, to_centers
