"""The first values of parameters (caffe: filler.hpp)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from siamese_proto.errors import GraphError, did_you_mean, quoted
from siamese_proto.graph.ir import Filler, Shape

if TYPE_CHECKING:
    from torch import Generator, Tensor


def fan(shape: Shape, variance_norm: str) -> float:
    """Return the n of xavier and msra: values per output (FAN_IN), per input (FAN_OUT), or the mean of both.

    It depends on the shape alone, so a transposed InnerProduct swaps them, as in Caffe.
    """
    count = math.prod(shape)
    fan_in = count / shape[0]
    fan_out = count / shape[1] if len(shape) > 1 else float(count)
    return {"FAN_IN": fan_in, "FAN_OUT": fan_out, "AVERAGE": (fan_in + fan_out) / 2}[variance_norm]


def fill(tensor: Tensor, filler: Filler, generator: Generator) -> None:
    """Fill a parameter in place. Raises GraphError for an unknown filler, or one that does not fit the shape."""
    if filler.type not in _FILLERS:
        raise GraphError(f"unknown filler type {quoted(filler.type)}{did_you_mean(filler.type, _FILLERS)}")
    if filler.sparse != -1 and filler.type != "gaussian":
        raise GraphError(f"sparse is for the filler 'gaussian' only, not for {quoted(filler.type)}")
    if not tensor.dim() and (filler.type in _COUNTING or filler.sparse != -1):
        raise GraphError(f"the filler {quoted(filler.type)} counts along axes, and a single number has none")
    if tensor.numel():
        _FILLERS[filler.type](tensor, filler, generator)


def _constant(tensor: Tensor, filler: Filler, generator: Generator) -> None:
    tensor.fill_(filler.value)


def _uniform(tensor: Tensor, filler: Filler, generator: Generator) -> None:
    """Uniform in [min, max)."""
    if filler.min > filler.max:
        raise GraphError(f"min {filler.min:g} of the filler 'uniform' is above its max {filler.max:g}")
    tensor.uniform_(filler.min, filler.max, generator=generator)


def _gaussian(tensor: Tensor, filler: Filler, generator: Generator) -> None:
    """N(mean, std^2); with `sparse` each value is drawn with probability sparse / shape[0], else 0."""
    if filler.std < 0:
        raise GraphError(f"std {filler.std:g} of the filler 'gaussian' is below 0")
    tensor.normal_(filler.mean, filler.std, generator=generator)
    if filler.sparse >= 0:
        keep = min(1.0, filler.sparse / tensor.shape[0])
        tensor.mul_(tensor.new_empty(tensor.shape).bernoulli_(keep, generator=generator))


def _positive_unitball(tensor: Tensor, filler: Filler, generator: Generator) -> None:
    """Uniform in [0, 1), then each row divided by its sum."""
    rows = tensor.uniform_(0, 1, generator=generator).view(tensor.shape[0], -1)  # (N, K)
    rows.div_(rows.sum(1, keepdim=True))


def _xavier(tensor: Tensor, filler: Filler, generator: Generator) -> None:
    """U(-s, s) with s = sqrt(3 / n)."""
    scale = math.sqrt(3 / fan(tuple(tensor.shape), filler.variance_norm))
    tensor.uniform_(-scale, scale, generator=generator)


def _msra(tensor: Tensor, filler: Filler, generator: Generator) -> None:
    """N(0, 2 / n)."""
    tensor.normal_(0, math.sqrt(2 / fan(tuple(tensor.shape), filler.variance_norm)), generator=generator)


def _bilinear(tensor: Tensor, filler: Filler, generator: Generator) -> None:
    """The kernel of bilinear upsampling in every channel: (1 - |x / f - c|) (1 - |y / f - c|), f = ceil(K / 2)."""
    import torch

    if tensor.dim() != 4 or tensor.shape[2] != tensor.shape[3]:
        raise GraphError(f"the filler 'bilinear' needs a square 4-axis blob, not {tuple(tensor.shape)}")
    width = tensor.shape[3]
    f = math.ceil(width / 2)
    center = (width - 1) / (2 * f)
    line = 1 - (torch.arange(width, dtype=torch.float64, device=tensor.device) / f - center).abs()  # (K,)
    tensor.copy_((line[:, None] * line[None, :]).expand(tensor.shape))


_FILLERS: dict[str, Callable[[Tensor, Filler, Generator], None]] = {
    "constant": _constant,
    "uniform": _uniform,
    "gaussian": _gaussian,
    "positive_unitball": _positive_unitball,
    "xavier": _xavier,
    "msra": _msra,
    "bilinear": _bilinear,
}

_COUNTING = ("positive_unitball", "xavier", "msra")  # those that read the size of the first axis
