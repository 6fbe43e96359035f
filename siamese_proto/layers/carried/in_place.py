"""Functions of one number whose gradient is another where they work in place."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from siamese_proto.layers.autograd.in_place import with_slope


def softplus_in_place(x: Tensor) -> Tensor:
    """`y = log(1 + exp(x))` with the gradient that Caffe has in place: the slope at y, not at x."""
    y = functional.softplus(x.detach(), threshold=50)
    return with_slope(x, y, y.sigmoid())


def clip_in_place(x: Tensor, low: float, high: float) -> Tensor:
    """`y = max(low, min(high, x))` with the gradient that Caffe has in place: it passes wherever y is within both."""
    y = x.detach().clamp(max=high).clamp(min=low)
    return with_slope(x, y, ((y >= low) & (y <= high)).to(y.dtype))
