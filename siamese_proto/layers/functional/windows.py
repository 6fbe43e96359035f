"""The windows of a convolution as channels, in any number of dimensions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional


def windows_as_channels(
    x: Tensor,
    axis: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    pads: Sequence[tuple[int, int]],
    dilation: Sequence[int],
) -> Tensor:
    """`y[n, (c, *k), t] = x[n, c, stride t + dilation k - pad]`, 0 in the pads, which are given as (before, behind).

    (*N, C, *S) with C at `axis` -> (*N, C x prod kernel, *T)
    """
    rank = x.dim() - axis - 1
    x = functional.pad(x, [size for pad in reversed(pads) for size in pad])
    for i in range(rank):
        x = x.unfold(axis + 1 + i, dilation[i] * (kernel[i] - 1) + 1, stride[i])[..., :: dilation[i]]
    counts = range(axis + 1, axis + 1 + rank)
    inside = range(axis + 1 + rank, axis + 1 + 2 * rank)
    return x.permute(*range(axis + 1), *inside, *counts).flatten(axis, axis + rank)
