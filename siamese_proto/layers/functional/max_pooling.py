"""MAX pooling of pictures in less time than torch takes, and without keeping the bottom for the backward pass."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from siamese_proto.layers.functional.transforms import is_hooked

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


def max_pool(
    x: Tensor, kernel: Pair, stride: Pair, pad: Pair, *, ceil_mode: bool, is_flattened: bool = False
) -> Tensor:
    """torch.max_pool2d of x (N, C, H, W), of which autograd keeps only where each maximum was.

    torch's own keeps x besides, though its backward pass asks no more than the shape of it: of a convolution with a
    pooling layer behind that is the largest tensor of all. With `is_flattened` the top's gradient is expected to come
    with channels outermost in memory: torch would follow it, and copy all else.
    """
    if x.stride(1) == 1 or x.shape[1] < _FEWEST_CHANNELS:
        layout = torch.channels_last if x.stride(1) == 1 else torch.contiguous_format
        with _keeping_shapes(layout):
            y = torch.max_pool2d(x, kernel, stride, pad, ceil_mode=ceil_mode)
        if is_flattened and y.requires_grad:
            y.register_hook(lambda gradient: gradient.contiguous(memory_format=layout))  # type: ignore[no-untyped-call]  # torch leaves it so
        return y
    turned = x.contiguous(memory_format=torch.channels_last)
    with _keeping_shapes(torch.contiguous_format):
        return torch.max_pool2d(turned, kernel, stride, pad, ceil_mode=ceil_mode).contiguous()


def _keeping_shapes(layout: torch.memory_format) -> AbstractContextManager[None]:
    """Where nobody else has a hand in what autograd keeps, what is pooled is kept as its shape."""
    return nullcontext() if is_hooked() else _hooks(layout)


@functools.cache
def _hooks(layout: torch.memory_format) -> saved_tensors_hooks:
    """For what is pooled stands a tensor of its shape and `layout` without any memory, which torch never reads."""

    def pack(tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.int64:  # where the maxima were
            return tensor
        hollow = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device, memory_format=layout)
        hollow.untyped_storage().resize_(0)
        return hollow

    return saved_tensors_hooks(pack, lambda kept: kept)
