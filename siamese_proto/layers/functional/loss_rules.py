"""Losses whose gradient in Caffe is not the derivative of the value."""

import math
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from siamese_proto.layers.functional.element_wise import differentiable_once
from siamese_proto.layers.label_indices import divisor


def contrastive_loss(a: Tensor, b: Tensor, similar: Tensor, *, margin: float, legacy: bool) -> Tensor:
    """Return the loss () of the pairs (a, b), both (N, C), that are similar (N,) or not."""
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


def center_loss(x: Tensor, labels: Tensor, centers: Tensor) -> Tensor:
    """Return the loss () of embeddings x (N, K) with integer labels (N,) and centers (C, K)."""
    return cast(Tensor, CenterLossRule.apply(x, labels, centers))  # type: ignore[no-untyped-call]  # torch leaves apply without types


class CenterLossRule(torch.autograd.Function):
    """`1 / (2 N) sum of |x_n - c_y(n)|^2`, `dL/dx = (x - c) / N`.

    The gradient of a center is `sum of (c - x) / (1 + count)` over the rows of its class, whatever the loss weight.
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


FLOOR = 1e-20  # kLOG_THRESHOLD of Caffe


def floored_log(probabilities: Tensor) -> Tensor:
    """Return `log(max(p, 1e-20))` of each element."""
    return cast(Tensor, FlooredLogRule.apply(probabilities))  # type: ignore[no-untyped-call]  # torch leaves apply without types


def infogain_loss(
    scores: Tensor, labels: Tensor, counted: Tensor | None, gains: Tensor, axis: int
) -> tuple[Tensor, Tensor]:
    """Return the sum of the losses (), and the probabilities in the shape of the scores."""
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
    scores (*A, C, *B), integer labels (*A, 1, *B) below C, counted of the same shape: 1 for labels that count, or
    None if all do, gains H (C, C)
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


LOG_FLOOR = math.log(torch.finfo(torch.float32).tiny)  # of FLT_MIN, of C
# A label that cannot occur, so that torch ignores none. The minimum is what NaN and infinity are converted to.
_NOTHING = torch.iinfo(torch.int64).min + 1


def softmax_loss(scores: Tensor, labels: Tensor, axis: int, ignored: int | None, normalization: str) -> Tensor:
    """`-sum of log(max(p[label], FLT_MIN)) / divisor` with p the softmax of the scores along `axis`, a scalar.

    The gradient is `p - onehot(label)`, below the floor too. (softmax_loss_layer.cpp)
    scores (*A, C, *B), labels of any shape with prod A x prod B values, whose fractions are cut off as in C
    On the CPU, raises IndexError for labels outside the classes.
    """
    logs = scores.log_softmax(axis)
    if logs.requires_grad and not torch.compiler.is_exporting():
        # Hidden from autograd, because the gradient ignores the floor. It reads these logs, but exp(floor) is about 0.
        logs.data.clamp_(min=LOG_FLOOR)
    else:
        logs = logs.clamp(min=LOG_FLOOR)
    indices = labels.long().reshape(-1)
    outer, count = scores.shape[:axis].numel(), indices.numel()
    if axis != 1 or logs.dim() != 2:
        inner = scores.shape[axis + 1 :].numel()
        logs, indices = logs.reshape(outer, scores.shape[axis], inner), indices.reshape(outer, inner)
    if ignored is None:
        is_mean = normalization in ("VALID", "FULL") and count > 0  # torch's kernel divides
        loss = functional.nll_loss(logs, indices, reduction="mean" if is_mean else "sum", ignore_index=_NOTHING)
        return loss if is_mean else loss / divisor(normalization, outer, count, None)
    total = functional.nll_loss(logs, indices, reduction="sum", ignore_index=ignored)
    return total / divisor(normalization, outer, count, indices != ignored)
