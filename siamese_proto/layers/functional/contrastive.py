"""The contrastive loss with Caffe's gradient."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from siamese_proto.layers.functional.once import differentiable_once


def contrastive_loss(a: Tensor, b: Tensor, similar: Tensor, *, margin: float, legacy: bool) -> Tensor:
    """The loss of the pairs (a, b), both (N, C), that are similar (N) or not -> ()."""
    return cast(Tensor, ContrastiveLossRule.apply(a, b, similar, margin, legacy))  # type: ignore[no-untyped-call]  # torch leaves apply without types


class ContrastiveLossRule(torch.autograd.Function):
    """The loss of pairs (a, b), and Caffe's gradient of it, which adds 1e-4 to the distance it divides by.

    `dL/da = c (a - b) / N`, `dL/db = -dL/da`; c is 1 for pairs that are similar, and for the others
    `-(m - d) / (d + 1e-4)` (legacy: -1) within the margin m, 0 beyond: finite at d = 0, where the derivative is not.
    (contrastive_loss_layer.cpp)
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, similar: Tensor, margin: float, legacy: bool) -> Tensor:
        difference = a - b  # (N, C)
        squared = difference.square().sum(1)  # (N,)
        if legacy:
            hinge = (margin - squared).clamp_(min=0)  # (N,)
            pull = -(hinge > 0).to(a.dtype)
            terms = hinge
        else:
            distance = squared.sqrt()
            hinge = (margin - distance).clamp_(min=0)
            pull = -hinge / (distance + 1e-4)
            terms = hinge.square()
        ctx.save_for_backward(difference, torch.where(similar, 1.0, pull))
        return torch.where(similar, squared, terms).sum() / (2 * a.shape[0])

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        difference, pull = ctx.saved_tensors
        to_first = difference * (pull * (gradient / len(difference))).unsqueeze(1)  # (N, C)
        return to_first, -to_first if ctx.needs_input_grad[1] else None, None, None, None
