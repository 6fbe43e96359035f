"""The logistic loss of a softmax with Caffe's floor and gradient."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

FLOAT_MIN = torch.finfo(torch.float32).tiny  # FLT_MIN of C


def softmax_loss(scores: Tensor, labels: Tensor, counted: Tensor | None, axis: int) -> tuple[Tensor, Tensor]:
    """The sum of the losses (), and the probabilities in the shape of the scores."""
    total, probabilities = SoftmaxLossRule.apply(scores, labels, counted, axis)  # type: ignore[no-untyped-call]  # torch leaves apply without types
    return total, probabilities


def without_floor(scores: Tensor, labels: Tensor, axis: int) -> tuple[Tensor, Tensor] | None:
    """The same by kernels of torch's own, which take less time; None where a probability is below the floor.

    That is asked on the CPU alone: on a GPU everything would wait for the answer.
    """
    if not scores.is_cpu or torch.compiler.is_compiling() or not scores.numel():
        return None
    logs = scores.log_softmax(axis)
    if not float(logs.detach().min()) >= math.log(max(FLOAT_MIN, torch.finfo(logs.dtype).tiny)):
        return None
    nothing = torch.iinfo(labels.dtype).min  # a label that none can be, so that torch ignores no other
    total = functional.nll_loss(logs, labels.squeeze(axis), reduction="sum", ignore_index=nothing)
    return total, logs.detach().exp()


class SoftmaxLossRule(torch.autograd.Function):
    """`-sum of log(max(p[label], FLT_MIN))` with `p = softmax(scores)`, and p.

    The gradient is `p - onehot(label)` below the floor too. (softmax_loss_layer.cpp)
    scores (*A, C, *B), labels (*A, 1, *B) whole numbers below C, counted of the same shape: 1 where a label counts, or
    None where all do
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, labels: Tensor, counted: Tensor | None, axis: int) -> tuple[Tensor, Tensor]:
        probabilities = scores.softmax(axis)
        picked = probabilities.gather(axis, labels)
        losses = picked.clamp(min=max(FLOAT_MIN, torch.finfo(scores.dtype).tiny)).log()
        if counted is not None:
            losses = losses * counted
        ctx.save_for_backward(probabilities, labels, counted)
        ctx.axis = axis
        ctx.mark_non_differentiable(probabilities)
        return -losses.sum(), probabilities

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        probabilities, labels, counted = ctx.saved_tensors
        if counted is not None:
            gradient = gradient * counted
        difference = probabilities.scatter_add(ctx.axis, labels, probabilities.new_full(labels.shape, -1.0))
        return difference.mul_(gradient), None, None, None
