"""MAX pooling of pictures in less time than torch takes, and without keeping the bottom for the backward pass."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

Pair = tuple[int, int]
_FEWEST_CHANNELS = 4  # with which torch's kernel for channels last is the faster one


def maxima(x: Tensor, kernel: Pair, stride: Pair, *, ceil_mode: bool) -> Tensor:
    """torch.max_pool2d of x (N, C, H, W) without pads, kernel sizes above 1; for where nobody asks for a gradient.

    The greatest of pictures moved against one another, down and then across: torch's kernel goes through windows one by
    one, and finds out where each maximum was besides.
    """
    for axis, (length, step) in enumerate(zip(kernel, stride, strict=True), 2):
        size = x.shape[axis]
        count = (size - length + (step - 1 if ceil_mode else 0)) // step + 1
        moved = []
        for by in range(length):
            inside = min(count, (size - 1 - by) // step + 1)  # the last windows may hang over
            places = slice(by, by + (inside - 1) * step + 1, step)
            moved.append(x[:, :, places] if axis == 2 else x[:, :, :, places])
        is_whole = moved[0].shape == moved[1].shape
        x = torch.maximum(moved[0], moved[1]) if is_whole else moved[0].clone()
        for part in moved[2 if is_whole else 1 :]:
            known = x.narrow(axis, 0, part.shape[axis])
            torch.maximum(known, part, out=known)
    return x


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
        y, places = torch.ops.aten.max_pool2d_with_indices.default(_channels_last(x), *settings)
        layout = torch.channels_last if x.stride(1) == 1 else torch.contiguous_format
        y, places = (tensor.contiguous(memory_format=layout) for tensor in (y, places))
        ctx.save_for_backward(places)
        ctx.bottom, ctx.settings = (x.shape, layout), settings
        return cast(Tensor, y)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (places,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody wants the gradient's own
            how = (ctx.bottom, ctx.settings)
            return SpreadMaxima.apply(gradient, places, *how), None  # type: ignore[no-untyped-call]  # as above
        return spread(gradient, places, ctx.bottom, ctx.settings), None


def _channels_last(x: Tensor) -> Tensor:
    """The layout that torch's kernel takes a fraction of the time with, so that the copies are worth it."""
    return x.contiguous(memory_format=torch.channels_last) if x.shape[1] >= _FEWEST_CHANNELS else x


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
