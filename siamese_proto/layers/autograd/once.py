"""Rules of derivation that have no derivative of their own, and say so."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Let the backward function of a rule work as ever, but refuse to be differentiated: with a RuntimeError.

    What torch has by this name looks whether the incoming gradients can be differentiated. Where they are constants,
    as those of a sum are, it leaves out silently what a second derivative gets by way of the bottoms.
    """

    @functools.wraps(backward)
    def refusing(ctx: Any, *gradients: Any) -> Any:
        with torch.no_grad():
            found = backward(ctx, *gradients)
        if not torch.is_grad_enabled():
            return found
        rule = ctx.name().removesuffix("Backward")
        found = found if isinstance(found, tuple) else (found,)
        return tuple(None if gradient is None else _refused(gradient, rule) for gradient in found)

    return refusing


def _refused(gradient: Tensor, rule: str) -> Tensor:
    refused: Tensor = FirstDerivative.apply(gradient.detach().requires_grad_(), rule)  # type: ignore[no-untyped-call]  # torch leaves apply without types
    return refused


class FirstDerivative(torch.autograd.Function):
    """A gradient that cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, rule: str) -> Tensor:
        ctx.rule = rule
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> None:
        raise RuntimeError(
            f"{ctx.rule} has no second derivative: the gradient is Caffe's own, or computed by a rule made for speed"
        )
