"""Pooling that torch's kernels do not support, and the windows of a convolution as channels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from siamese_proto.layers.pooling import LOWEST, mean_pick, pick, windows_of
from siamese_proto.layers.spp import split_in_bins


class WindowPool(nn.Module):
    """The maximum (MAX) or mean (AVE) of each window, with as many windows as Caffe counts.

    (N, C, H, W) -> (N, C, OH, OW), and with `with_mask` the index h W + w of each maximum, -1 outside the image
    """

    def __init__(
        self,
        method: str,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        pad: tuple[int, int] = (0, 0),
        *,
        ceil_mode: bool = True,
        with_mask: bool = False,
    ) -> None:
        super().__init__()
        self.method = method
        self.kernel = kernel
        self.stride = stride
        self.pad = pad
        self.ceil_mode = ceil_mode
        self.with_mask = with_mask

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the pooled image, and optionally the indices of its maxima."""
        height, width = x.shape[2:]
        counts = [self.windows(size, axis) for axis, size in enumerate((height, width))]
        # Crop or extend the far ends to where the last windows end.
        below, right = (
            (counts[i] - 1) * self.stride[i] + self.kernel[i] - self.pad[i] - x.shape[2 + i] for i in (0, 1)
        )
        value = LOWEST if self.method == "MAX" else 0.0
        padded = functional.pad(x, (self.pad[1], right, self.pad[0], below), value=value)
        if self.method == "AVE":
            return self.mean(padded, height, width)
        if not self.with_mask:
            return functional.max_pool2d(padded, self.kernel, self.stride)
        y, indices = functional.max_pool2d(padded, self.kernel, self.stride, return_indices=True)
        rows = indices.div(padded.shape[3], rounding_mode="floor") - self.pad[0]
        columns = indices % padded.shape[3] - self.pad[1]
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        return y, (rows * width + columns).where(inside, -1).to(x.dtype)

    def windows(self, size: int, axis: int) -> int:
        """Return the number of windows along an axis: none starts after the image and its near pad."""
        stride, pad = self.stride[axis], self.pad[axis]
        count = (size + 2 * pad - self.kernel[axis] + (stride - 1 if self.ceil_mode else 0)) // stride + 1
        return count - 1 if any(self.pad) and (count - 1) * stride >= size + pad else count

    def mean(self, padded: Tensor, height: int, width: int) -> Tensor:
        """Divide the sum of each window by the size of its part inside the image and its pads."""
        total = functional.avg_pool2d(padded, self.kernel, self.stride, divisor_override=1)
        parts = []
        for axis, size in enumerate((height, width)):
            starts = torch.arange(total.shape[2 + axis]) * self.stride[axis]
            parts.append((starts + self.kernel[axis]).clamp(max=size + 2 * self.pad[axis]) - starts)
        return total / torch.outer(*parts).to(total)


class StochasticPool(nn.Module):
    """A random element of each window, with probability x / sum of x; in eval mode the mean of such draws.

    (N, C, H, W) -> (N, C, OH, OW), with as many windows as Caffe counts. `draws` overrides the mode.
    """

    def __init__(
        self,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        *,
        ceil_mode: bool = True,
        draws: bool | None = None,
    ) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride
        self.ceil_mode = ceil_mode
        self.draws = draws

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled image; the zeros of the pad are never drawn."""
        sizes = zip(x.shape[2:], self.kernel, self.stride, strict=True)
        below, right = (
            -(size - kernel) % stride if self.ceil_mode else -((size - kernel) % stride)
            for size, kernel, stride in sizes
        )
        windows = windows_of(functional.pad(x, (0, right, 0, below)), self.kernel, self.stride)
        draws = self.training if self.draws is None else self.draws
        return pick(windows, torch.rand_like(windows[..., 0])) if draws else mean_pick(windows)


def pyramid_draw(x: Tensor, levels: int, *, draws: bool) -> Tensor:
    """Return an element of each of 1 x 1, 2 x 2, 4 x 4, .. bins as in `StochasticPool`, or the mean of such draws.

    (N, C, H, W) -> (N, C x sum of 4^level);  (N, C, 1, 1) for a single level
    """
    pooled = []
    for level in range(levels):
        window = (x.shape[2] >> level, x.shape[3] >> level)  # no pads, so that it divides evenly
        windows = windows_of(x, window, window)
        pooled.append(pick(windows, torch.rand_like(windows[..., 0])) if draws else mean_pick(windows))
    return pooled[0] if levels == 1 else torch.cat([bins.flatten(1) for bins in pooled], 1)


def pyramid_pool(x: Tensor, levels: int, method: str) -> Tensor:
    """Return the maximum (MAX) or mean (AVE) of 1 x 1, 2 x 2, 4 x 4, .. bins.

    (N, C, H, W) -> (N, C x sum of 4^level);  (N, C, 1, 1) for a single level
    """
    pooled = []
    for level in range(levels):
        height, top, bottom = split_in_bins(x.shape[2], 2**level)
        width, left, right = split_in_bins(x.shape[3], 2**level)
        padded = functional.pad(x, (left, right, top, bottom), value=LOWEST if method == "MAX" else 0.0)
        pool = functional.max_pool2d if method == "MAX" else functional.avg_pool2d
        pooled.append(pool(padded, (height, width)))
    return pooled[0] if levels == 1 else torch.cat([bins.flatten(1) for bins in pooled], 1)


def windows_as_channels(
    x: Tensor,
    axis: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    pads: Sequence[tuple[int, int]],
    dilation: Sequence[int],
) -> Tensor:
    """`y[n, (c, *k), t] = x[n, c, stride t + dilation k - pad]`, 0 in the pads, (before, after) for each dimension.

    (*N, C, *S) with C at `axis` -> (*N, C x prod kernel, *T)
    """
    rank = x.dim() - axis - 1
    x = functional.pad(x, [size for pad in reversed(pads) for size in pad])
    for i in range(rank):
        x = x.unfold(axis + 1 + i, dilation[i] * (kernel[i] - 1) + 1, stride[i])[..., :: dilation[i]]
    counts = range(axis + 1, axis + 1 + rank)
    inside = range(axis + 1 + rank, axis + 1 + 2 * rank)
    return x.permute(*range(axis + 1), *inside, *counts).flatten(axis, axis + rank)
