"""The logistic loss of a softmax with Caffe's floor and gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from siamese_proto.layers.loss import divisor

LOG_FLOOR = math.log(torch.finfo(torch.float32).tiny)  # of FLT_MIN, of C
# A label that none can be, so that torch ignores none: the least of all is what NaN and infinities turn to.
_NOTHING = torch.iinfo(torch.int64).min + 1


def softmax_loss(scores: Tensor, labels: Tensor, axis: int, ignored: int | None, normalization: str) -> Tensor:
    """`-sum of log(max(p[label], FLT_MIN)) / divisor` with p the softmax of the scores along `axis`, a scalar.

    The gradient is `p - onehot(label)`, below the floor too. (softmax_loss_layer.cpp)
    scores (*A, C, *B), labels of any shape with prod A x prod B values, which lose what follows the point as in C
    Raises IndexError for labels outside the classes, on the CPU.
    """
    logs = scores.log_softmax(axis)
    if logs.requires_grad and not torch.compiler.is_exporting():
        # Unseen by autograd: the gradient knows of no floor. It reads these logs, and exp(floor) is as good as 0.
        logs.data.clamp_(min=LOG_FLOOR)
    else:
        logs = logs.clamp(min=LOG_FLOOR)
    indices = labels.long().reshape(-1)
    outer, count = scores.shape[:axis].numel(), indices.numel()
    if axis != 1 or logs.dim() != 2:
        inner = scores.shape[axis + 1 :].numel()
        logs, indices = logs.reshape(outer, scores.shape[axis], inner), indices.reshape(outer, inner)
    if ignored is None:
        is_mean = normalization in ("VALID", "FULL") and count > 0  # then torch's kernel divides
        loss = functional.nll_loss(logs, indices, reduction="mean" if is_mean else "sum", ignore_index=_NOTHING)
        return loss if is_mean else loss / divisor(normalization, outer, count, None)
    total = functional.nll_loss(logs, indices, reduction="sum", ignore_index=ignored)
    return total / divisor(normalization, outer, count, indices != ignored)
