"""MAX pooling that does not keep its bottom for the backward pass."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

Pair = tuple[int, int]


def max_pool(x: Tensor, kernel: Pair, stride: Pair, pad: Pair, *, ceil_mode: bool) -> Tensor:
    """torch.max_pool2d of x (N, C, H, W), which keeps only where each maximum was.

    torch's own keeps x besides, though its backward pass asks no more than the shape of it: of a convolution with a
    pooling layer behind that is the largest tensor of all.
    """
    settings = (kernel, stride, pad, (1, 1), ceil_mode)
    return cast(Tensor, MaxPool.apply(x, settings))  # type: ignore[no-untyped-call]  # torch leaves apply without types


class MaxPool(torch.autograd.Function):
    """(N, C, H, W) -> (N, C, OH, OW)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, settings: tuple[Any, ...]) -> Tensor:
        y, places = torch.ops.aten.max_pool2d_with_indices(x, *settings)
        ctx.save_for_backward(places)
        layout = torch.channels_last if x.stride(1) == 1 else torch.contiguous_format
        ctx.bottom, ctx.settings = (x.shape, layout), settings
        return cast(Tensor, y)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (places,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants the gradient's own
            how = (ctx.bottom, ctx.settings)
            return SpreadMaxima.apply(gradient, places, *how), None  # type: ignore[no-untyped-call]  # as above
        return spread(gradient, places, ctx.bottom, ctx.settings), None


class SpreadMaxima(torch.autograd.Function):
    """The adjoint, (N, C, OH, OW) -> (N, C, H, W)."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, places: Tensor, bottom: Any, settings: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(places)
        return spread(gradient, places, bottom, settings)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (places,) = ctx.saved_tensors
        chosen = gradient.flatten(2).gather(2, places.flatten(2)).view_as(places)
        return chosen, None, None, None


def spread(
    gradient: Tensor, places: Tensor, bottom: tuple[torch.Size, torch.memory_format], settings: tuple[Any, ...]
) -> Tensor:
    """What each maximum gets, added up where the bottom had it: shape and layout of `bottom`."""
    shape, layout = bottom
    x = torch.empty(shape, dtype=gradient.dtype, device=gradient.device, memory_format=layout)
    # torch takes the way of the gradient's layout, and copies where the others have another. Of the bottom it asks the
    # shape alone: the very tensor to be filled has it.
    gradient = gradient.contiguous(memory_format=layout)
    aten = torch.ops.aten.max_pool2d_with_indices_backward
    return cast(Tensor, aten.grad_input(gradient, x, *settings, places, grad_input=x))
