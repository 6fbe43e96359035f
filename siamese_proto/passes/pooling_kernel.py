"""Kernels of MAX pooling over pictures."""

from typing import Any, cast

import torch
from torch import Tensor

Pair = tuple[int, int]
_FEWEST_CHANNELS = 4  # with which torch's channels-last kernel is faster


def maxima(x: Tensor, kernel: Pair, stride: Pair, *, ceil_mode: bool) -> Tensor:
    """Return torch.max_pool2d of x (N, C, H, W), without pads and for kernel sizes above 1, without gradient.

    The maximum of shifted views, first down and then across. torch's kernel goes through windows one by one and also
    finds the position of each maximum.
    """
    for axis, (length, step) in enumerate(zip(kernel, stride, strict=True), 2):
        size = x.shape[axis]
        count = (size - length + (step - 1 if ceil_mode else 0)) // step + 1
        views = []
        for offset in range(length):
            inside = min(count, (size - 1 - offset) // step + 1)  # the last windows may exceed the picture
            places = slice(offset, offset + (inside - 1) * step + 1, step)
            views.append(x[:, :, places] if axis == 2 else x[:, :, :, places])
        is_whole = views[0].shape == views[1].shape
        x = torch.maximum(views[0], views[1]) if is_whole else views[0].clone()
        for view in views[2 if is_whole else 1 :]:
            inner = x.narrow(axis, 0, view.shape[axis])
            torch.maximum(inner, view, out=inner)
    return x


def max_pool(
    x: Tensor, kernel: Pair, stride: Pair, pad: Pair, *, ceil_mode: bool, is_flattened: bool = False
) -> Tensor:
    """Return torch.max_pool2d of x (N, C, H, W), for which autograd saves only the position of each maximum.

    torch also saves x, although its backward pass needs only the shape: after a convolution, x is the largest tensor of
    the net. With `is_flattened`, the gradient of the top is expected with channels outermost in memory; torch would
    otherwise copy everything else to that layout.
    """
    turned = x.stride(1) != 1 and x.shape[1] >= _FEWEST_CHANNELS
    bottom = x.contiguous(memory_format=torch.channels_last) if turned else x
    settings = (kernel, stride, pad, ceil_mode, is_flattened and not turned)
    y = cast(Tensor, MaxPoolRule.apply(bottom, settings))  # type: ignore[no-untyped-call]  # torch leaves apply without types
    return y.contiguous() if turned else y


class MaxPoolRule(torch.autograd.Function):
    """MAX pooling that saves only the positions of the maxima and the shape of its bottom."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, settings: tuple[Pair, Pair, Pair, bool, bool]) -> Tensor:
        kernel, stride, pad, ceil_mode, ctx.is_flattened = settings
        y, indices = torch.ops.aten.max_pool2d_with_indices(x, kernel, stride, pad, (1, 1), ceil_mode)
        ctx.layout = torch.channels_last if x.stride(1) == 1 else torch.contiguous_format
        ctx.shape, ctx.settings = x.shape, settings
        ctx.save_for_backward(indices)
        return cast(Tensor, y)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (indices,) = ctx.saved_tensors
        kernel, stride, pad, ceil_mode, _ = ctx.settings
        if ctx.is_flattened:
            gradient = gradient.contiguous(memory_format=ctx.layout)
        bottom = torch.empty(ctx.shape, dtype=gradient.dtype, device=gradient.device, memory_format=ctx.layout)
        settings = (kernel, stride, pad, (1, 1), ceil_mode, indices)
        operator = torch.ops.aten.max_pool2d_with_indices_backward
        if torch.is_grad_enabled() and gradient.requires_grad:  # the variant with an output has no derivative
            return operator(gradient, bottom, *settings), None
        # torch reads only the shape and layout of the bottom, so the result may be written over it.
        return operator.grad_input(gradient, bottom, *settings, grad_input=bottom), None
