"""Logistic losses of probabilities with Caffe's floor and gradient."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from siamese_proto.layers.functional.once import differentiable_once

FLOOR = 1e-20  # kLOG_THRESHOLD of Caffe


def floored_log(probabilities: Tensor) -> Tensor:
    """`log(max(p, 1e-20))` of each element."""
    return cast(Tensor, FlooredLogRule.apply(probabilities))  # type: ignore[no-untyped-call]  # torch leaves apply without types


def infogain_loss(
    scores: Tensor, labels: Tensor, counted: Tensor | None, gains: Tensor, axis: int
) -> tuple[Tensor, Tensor]:
    """The sum of the losses (), and the probabilities in the shape of the scores."""
    total, probabilities = InfogainLossRule.apply(scores, labels, counted, gains, axis)  # type: ignore[no-untyped-call]  # torch leaves apply without types
    return total, probabilities


class FlooredLogRule(torch.autograd.Function):
    """`y = log(max(p, 1e-20))`, `dy/dp = 1 / max(p, 1e-20)`, below the floor too.

    (multinomial_logistic_loss_layer.cpp)
    """

    @staticmethod
    def forward(ctx: Any, probabilities: Tensor) -> Tensor:
        floored = probabilities.clamp(min=FLOOR)
        ctx.save_for_backward(floored)
        return floored.log()

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (floored,) = ctx.saved_tensors
        return cast(Tensor, gradient / floored)


class InfogainLossRule(torch.autograd.Function):
    """`-sum over l of H[label, l] log(max(p_l, 1e-20))` with `p = softmax(scores)`, and p.

    The gradient is `p_l sum(H[label]) - H[label, l]`, below the floor too. (infogain_loss_layer.cpp)
    scores (*A, C, *B), labels (*A, 1, *B) whole numbers below C, counted of the same shape: 1 where a label counts, or
    None where all do, gains H (C, C)
    """

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, labels: Tensor, counted: Tensor | None, gains: Tensor, axis: int
    ) -> tuple[Tensor, Tensor]:
        probabilities = scores.softmax(axis)
        rows = gains.index_select(0, labels.reshape(-1))  # (labels, C)
        rows = rows.reshape(*labels.squeeze(axis).shape, -1).movedim(-1, axis)  # (*A, C, *B)
        if counted is not None:
            rows = rows * counted
        ctx.save_for_backward(probabilities, rows)
        ctx.axis = axis
        ctx.mark_non_differentiable(probabilities)
        return -(rows * probabilities.clamp(min=FLOOR).log()).sum(), probabilities

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        probabilities, rows = ctx.saved_tensors
        return gradient * (probabilities * rows.sum(ctx.axis, keepdim=True) - rows), None, None, None, None
