"""Element-wise functions with Caffe's gradients and rules for ties."""

import functools
from collections.abc import Callable, Sequence
from functools import reduce
from operator import mul
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional


def differentiable_once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Raise RuntimeError for `create_graph`, in a rule without a second derivative (decorator of `backward`).

    torch's own `once_differentiable` silently leaves out terms of a second derivative.
    """

    @functools.wraps(backward)
    def refusing(ctx: Any, *gradients: Any) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(f"{ctx.name()} has no second derivative: leave create_graph out")
        return backward(ctx, *gradients)

    return refusing


def with_slope(x: Tensor, y: Tensor, slope: Tensor) -> Tensor:
    """Return `y` with the gradient `dL/dx = slope dL/dy`; all three have the same shape."""
    return cast(Tensor, SlopeRule.apply(x, y, slope))  # type: ignore[no-untyped-call]  # torch leaves apply without types


class SlopeRule(torch.autograd.Function):
    """`dL/dx = slope dL/dy` for any y."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return y.view_as(y)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None, None


def softplus_in_place(x: Tensor) -> Tensor:
    """`y = log(1 + exp(x))` with Caffe's gradient in place: the slope at y, not at x."""
    y = functional.softplus(x.detach(), threshold=50)
    return with_slope(x, y, y.sigmoid())


def clip_in_place(x: Tensor, low: float, high: float) -> Tensor:
    """`y = max(low, min(high, x))` with Caffe's gradient in place: it passes wherever y is within both."""
    y = x.detach().clamp(max=high).clamp(min=low)
    return with_slope(x, y, ((y >= low) & (y <= high)).to(y.dtype))


def quotient_product(bottoms: Sequence[Tensor]) -> Tensor:
    """Return the product of tensors of the same shape."""
    return cast(Tensor, QuotientProduct.apply(*bottoms))  # type: ignore[no-untyped-call]  # torch leaves apply without types


class QuotientProduct(torch.autograd.Function):
    """`y = product of x_i`, `dy/dx_i = y / x_i` (eltwise_layer.cpp, stable_prod_grad: false)."""

    @staticmethod
    def forward(ctx: Any, *bottoms: Tensor) -> Tensor:
        product = reduce(mul, bottoms)
        ctx.save_for_backward(product, *bottoms)
        return product

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        product, *bottoms = ctx.saved_tensors
        return tuple(
            product / bottom * gradient if needed else None
            for bottom, needed in zip(bottoms, ctx.needs_input_grad, strict=True)
        )


def largest(*bottoms: Tensor) -> Tensor:
    """Return the maximum of several tensors; the gradient goes to a single one, as in Caffe.

    Of equal tensors that is the second, then the first, then the third, the fourth, ..
    """
    y = bottoms[0].where(bottoms[0] > bottoms[1], bottoms[1])
    for bottom in bottoms[2:]:
        y = bottom.where(bottom > y, y)
    return y


def highest(x: Tensor, top_k: int, axis: int | None = None, *, with_values: bool = False) -> Tensor:
    """Return the indices of the `top_k` highest values, the highest first; of equal values the later counts as higher.

    Without `axis`, of all values of a row: (N, *K) -> (N, 1, top_k), or (N, 2, top_k): indices, then values.
    With `axis` (.., C, ..) -> (.., top_k, ..), the indices, or the values instead.
    """
    along = -1 if axis is None else axis
    flat = x.detach().reshape(x.shape[0], -1) if axis is None else x.detach()
    values, places = flat.flip(along).sort(dim=along, descending=True, stable=True)
    values = values.narrow(along, 0, top_k)
    places = (flat.shape[along] - 1 - places.narrow(along, 0, top_k)).to(x.dtype)
    if axis is not None:
        return values if with_values else places
    stacked = torch.stack((places, values) if with_values else (places,), 1)  # (N, 1 or 2, top_k)
    return stacked.reshape(*stacked.shape, *(1,) * (x.dim() - 3))
