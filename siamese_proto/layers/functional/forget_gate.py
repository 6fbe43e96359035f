"""The forget gate of an LSTM with Caffe's gradient."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from siamese_proto.layers.functional.once import differentiable_once


def forget_gate(x: Tensor, cont: Tensor) -> Tensor:
    """How much of the cell (.., D) is kept, from the gate's input (.., D) and cont (.., 1)."""
    return cast(Tensor, ForgetGateRule.apply(x, cont))  # type: ignore[no-untyped-call]  # torch leaves apply without types


class ForgetGateRule(torch.autograd.Function):
    """`y = cont sigmoid(x)`, and 0 where cont is 0 whatever x is; `dy/dx = y (1 - y)`. (lstm_unit_layer.cpp)"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cont: Tensor) -> Tensor:
        y = torch.where(cont == 0, 0.0, cont * x.sigmoid())
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        return gradient * y * (1 - y), None
