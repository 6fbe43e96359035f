"""Convolution as a product of spectra, which is the fastest way for large kernels over small images.

An image is cut into tiles. The discrete Fourier transform of a tile, times the conjugate transform of the kernel, is
the transform of their correlation (Mathieu, Henaff and LeCun, Fast training of convolutional networks through FFTs,
2013). Tiles are small, so transforms are computed as products with matrices. What remains is one product of matrices
for each frequency. Between these steps rows are innermost in memory, (H, W, C, N), which makes all matrices contiguous.
Errors are proportional to the largest values of a tile, and no larger than those of direct convolution.

Shapes: N rows; C and K channels of bottom and top; L and L' height and width of a tile; T and T' height and width of
the part of the top that it produces; F frequencies of a tile; R rows times tiles.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from siamese_proto.layers.functional.element_wise import differentiable_once

Pair = tuple[int, int]
_FEW_TILES, _MANY_TILES = 32, 64  # per product, as measured; many if the kernels' spectra are large
_LARGE_KERNELS = 2**20  # numbers


@dataclass(frozen=True)
class Tiling:
    """How images are cut, down and across: `counts` tiles, each of which produces `outputs` positions of the top."""

    counts: Pair
    outputs: Pair
    kernel: Pair
    pad: Pair

    @property
    def lengths(self) -> Pair:
        """Return the size of a tile; neighbors overlap by the kernel size minus one."""
        return self.outputs[0] + self.kernel[0] - 1, self.outputs[1] + self.kernel[1] - 1

    @property
    def covered(self) -> Pair:
        """Return the size of an image that all tiles together cover."""
        down, across = (self.counts[i] * self.outputs[i] + self.kernel[i] - 1 for i in (0, 1))
        return down, across

    @property
    def frequencies(self) -> int:
        """Return the number of frequencies of a tile: half of those down, since the others are their conjugates."""
        height, width = self.lengths
        return (height // 2 + 1) * width


def convolve_by_spectrum(x: Tensor, weight: Tensor, bias: Tensor | None, tiling: Tiling) -> Tensor:
    """Convolve x (N, C, H, W) with weight (K, C, h, w) and stride 1, in float32 on the CPU.

    Returns:
        (N, K, H + 2 pad - h + 1, W + 2 pad - w + 1), with channels innermost in memory.
    """
    return cast(Tensor, SpectralConvolution.apply(x, weight, bias, tiling))  # type: ignore[no-untyped-call]  # torch leaves apply without types


class SpectralConvolution(torch.autograd.Function):
    """`Y_f = conj(W_f) X_f`, so `dX_f = W_f dY_f` and `dW_f = dY_f conj(X_f)`, for every frequency f.

    Complex numbers are stored as two real ones: the matrix of W_f is [[p, -q], [q, p]], (2 K, 2 C).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, tiling: Tiling) -> Tensor:
        transform = transforms(tiling)
        kernels = transform.of_kernel(weight)  # (F, 2 K, 2 C)
        size = [x.shape[i + 2] + 2 * tiling.pad[i] - tiling.kernel[i] + 1 for i in (0, 1)]
        y = _empty(x, (len(x), len(weight), *size))
        spectra = []  # (F, 2 C, R) each, R rows and tiles
        for rows, top in zip(*(_parts(tensor, tiling, kernels) for tensor in (x, y)), strict=True):
            image = padded(rows, tiling)
            spectrum = transform.of_image(to_tiles(image, tiling))
            outputs = transform.to_top(torch.bmm(kernels, spectrum), len(weight))  # (T, T', K, R)
            if bias is not None:
                outputs += bias[:, None]
            from_outputs(outputs, top, tiling)
            correct_empty_windows(top, image, bias, tiling)
            spectra.append(spectrum)
        ctx.save_for_backward(weight, *spectra)
        ctx.tiling, ctx.bottom = tiling, x.shape
        return y

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, *spectra = ctx.saved_tensors
        tiling, bottom = ctx.tiling, ctx.bottom
        transform = transforms(tiling)
        kernels = transform.of_kernel(weight)  # not saved: quick to compute and many times as large as the weight
        to_bottom, to_weight, to_bias = ctx.needs_input_grad[:3]
        of_bottom = _empty(gradient, bottom)
        of_kernels = torch.zeros_like(kernels)
        parts = (_parts(tensor, tiling, kernels) for tensor in (gradient, of_bottom))
        for spectrum, rows, of_rows in zip(spectra, *parts, strict=True):
            of_top = transform.of_top(to_outputs(rows, tiling))  # (F, 2 K, R)
            if to_weight:
                of_kernels.baddbmm_(of_top, spectrum.transpose(1, 2))
            if to_bottom:
                from_tiles(transform.to_image(torch.bmm(kernels.transpose(1, 2), of_top), bottom[1]), of_rows, tiling)
            del of_top  # free its memory for the next part
        return (
            of_bottom if to_bottom else None,
            transform.to_kernel(of_kernels, weight.shape) if to_weight else None,
            gradient.sum((0, 2, 3)) if to_bias else None,
            None,
        )


def _empty(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Return an empty tensor (N, C, H, W), channels innermost in memory."""
    layout = torch.channels_last
    return torch.empty(tuple(shape), dtype=like.dtype, device=like.device, memory_format=layout)


def _parts(tensor: Tensor, tiling: Tiling, kernels: Tensor) -> tuple[Tensor, ...]:
    """Split a batch, so that intermediate results stay in a cache.

    Parts are larger if the kernels' spectra, which are read for each part, are large themselves.
    """
    tiles = _MANY_TILES if kernels.numel() > _LARGE_KERNELS else _FEW_TILES
    return torch.split(tensor, max(1, tiles // (tiling.counts[0] * tiling.counts[1])))


@dataclass(frozen=True)
class Transforms:
    """Fourier transforms of tiles as matrices of real numbers; a complex number is two rows, real and imaginary.

    The first transform is down the tile, where the input is real and half of the frequencies suffice; then across.
    """

    down: Tensor  # (2 F, L): tiles
    across: Tensor  # (2 L', 2 L')
    down_kernel: Tensor  # (2 F, h): kernels, conjugate
    across_kernel: Tensor  # (2 L', 2 w)
    back_across: Tensor  # (2 T', 2 L'): spectrum to top
    back_down: Tensor  # (T, 2 F)

    def of_image(self, tiles: Tensor) -> Tensor:
        """Transform (L, L', C, R) -> (F, 2 C, R)."""
        return _to_spectrum(tiles, self.down, self.across)

    def to_image(self, spectrum: Tensor, channels: int) -> Tensor:
        """Apply the adjoint of `of_image`: (F, 2 C, R) -> (L, L', C, R)."""
        return _from_spectrum(spectrum, self.across.t(), self.down.t(), channels)

    def to_top(self, spectrum: Tensor, channels: int) -> Tensor:
        """Transform to the part of the top that a tile produces: (F, 2 K, R) -> (T, T', K, R)."""
        return _from_spectrum(spectrum, self.back_across, self.back_down, channels)

    def of_top(self, gradient: Tensor) -> Tensor:
        """Apply the adjoint of `to_top`: (T, T', K, R) -> (F, 2 K, R)."""
        return _to_spectrum(gradient, self.back_down.t(), self.back_across.t())

    def of_kernel(self, weight: Tensor) -> Tensor:
        """Transform (K, C, h, w) -> (F, 2 K, 2 C), the matrices [[p, -q], [q, p]]."""
        outputs, channels = weight.shape[:2]
        parts = _to_spectrum(weight.permute(2, 3, 0, 1), self.down_kernel, self.across_kernel)
        p, q = parts.view(-1, 2, outputs, channels).unbind(1)  # (F, K, C)
        kernels = p.new_empty(len(p), 2, outputs, 2, channels)
        kernels[:, 0, :, 0] = p
        kernels[:, 1, :, 1] = p
        kernels[:, 1, :, 0] = q
        torch.neg(q, out=kernels[:, 0, :, 1])
        return kernels.view(-1, 2 * outputs, 2 * channels)

    def to_kernel(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        """Apply the adjoint of `of_kernel`: (F, 2 K, 2 C) -> (K, C, h, w)."""
        outputs, channels = shape[:2]
        parts = gradient.view(-1, 2, outputs, 2, channels)
        summed = gradient.new_empty(len(gradient), 2 * outputs, channels)
        torch.add(parts[:, 0, :, 0], parts[:, 1, :, 1], out=summed[:, :outputs])
        torch.sub(parts[:, 1, :, 0], parts[:, 0, :, 1], out=summed[:, outputs:])
        return _from_spectrum(summed, self.across_kernel.t(), self.down_kernel.t(), outputs).permute(2, 3, 0, 1)


def _to_spectrum(tiles: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Transform (L, L', C, R) -> (frequencies, 2 C, R)."""
    height, width, channels, rows = tiles.shape
    halves = torch.mm(down, tiles.reshape(height, -1)).view(-1, 2 * width, channels * rows)
    return torch.matmul(across, halves).view(-1, 2 * channels, rows)


def _from_spectrum(spectrum: Tensor, across: Tensor, down: Tensor, channels: int) -> Tensor:
    """Transform (frequencies, 2 C, R) -> (L, L', C, R)."""
    rows = spectrum.shape[2]
    halves = torch.matmul(across, spectrum.view(-1, across.shape[1], channels * rows))
    return torch.mm(down, halves.view(down.shape[1], -1)).view(len(down), -1, channels, rows)


@functools.lru_cache(maxsize=64)
def transforms(tiling: Tiling) -> Transforms:
    """Compute the matrices for tiles of one size in double precision."""
    with torch.device("cpu"):  # regardless of the default device, since the matrices are cached
        return _transforms(tiling)


def _transforms(tiling: Tiling) -> Transforms:
    (height, width), (rows, columns) = tiling.lengths, tiling.outputs
    half = height // 2 + 1
    real, imaginary = torch.eye(2, dtype=torch.float64)
    # A real number x becomes x exp(-i a): the first of its two rows is the cosine, the second minus the sine.
    down = _rotated(_angles(half, height, height), real, -imaginary)  # (half, 2, height)
    down_kernel = _rotated(_angles(half, tiling.kernel[0], height), real, imaginary)
    back_down = _rotated(_angles(half, rows, height), real, -imaginary)
    # Every frequency left out adds as much as its conjugate.
    unpaired = torch.tensor([0, height // 2]) if height % 2 == 0 else torch.tensor([0])
    counts = torch.full((half, 1, 1), 2.0, dtype=torch.float64).index_fill_(0, unpaired, 1.0)
    back_down = back_down * counts / (height * width)
    return Transforms(
        *(
            matrix.float().contiguous()
            for matrix in (
                down.flatten(0, 1),
                _complex(_angles(width, width, width), -1),
                down_kernel.flatten(0, 1),
                _complex(_angles(width, tiling.kernel[1], width), 1),
                _complex(_angles(width, columns, width).t(), 1, spectrum_is_last=True),
                back_down.flatten(0, 1).t(),
            )
        )
    )


def _angles(frequencies: int, positions: int, length: int) -> Tensor:
    """Return the angle of each frequency at each position: (frequencies, positions)."""
    turns = torch.outer(torch.arange(frequencies), torch.arange(positions)) % length
    return turns.double() * (2 * math.pi / length)


def _rotated(angles: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Return the two parts of a rotated real number: (F, P) -> (F, 2, P)."""
    return angles.cos().unsqueeze(1) * cosine[:, None] + angles.sin().unsqueeze(1) * sine[:, None]


def _complex(angles: Tensor, sign: int, *, spectrum_is_last: bool = False) -> Tensor:
    """Return `exp(sign i angle)` as a matrix of real numbers: (A, B) -> (2 A, 2 B).

    The two parts of a frequency are adjacent. Those of positions are not: all real parts come first.
    """
    cosine, sine = angles.cos(), sign * angles.sin()
    blocks = torch.stack([torch.stack([cosine, -sine]), torch.stack([sine, cosine])])  # (to part, from part, A, B)
    order = (0, 2, 3, 1) if spectrum_is_last else (2, 0, 1, 3)
    return blocks.permute(order).reshape(2 * len(angles), -1)


def padded(x: Tensor, tiling: Tiling) -> Tensor:
    """Pad images with zeros to the size that the tiles cover: (N, C, H, W) -> (H', W', C, N)."""
    rows, channels, height, width = x.shape
    values = _rows_innermost(x)
    if tiling.covered == (height, width):
        return values
    image = x.new_zeros(*tiling.covered, channels, rows)
    top, left = tiling.pad
    image[top : top + height, left : left + width] = values
    return image


def to_tiles(image: Tensor, tiling: Tiling) -> Tensor:
    """Cut images into overlapping tiles: (H', W', C, N) -> (L, L', C, tiles N)."""
    (length, breadth), (down, across) = tiling.lengths, tiling.outputs
    tiles = image.unfold(0, length, down).unfold(1, breadth, across)
    return tiles.permute(4, 5, 2, 0, 1, 3).reshape(length, breadth, image.shape[2], -1)


def correct_empty_windows(top: Tensor, image: Tensor, bias: Tensor | None, tiling: Tiling) -> None:
    """Set top (N, K, H, W) to exactly the bias wherever a window of the image (H', W', C, N) contains only zeros.

    Direct convolution has no rounding error there, and the slope of a ReLU after it depends on the sign.
    """
    largest = image.abs().amax(2)  # (H', W', N)
    (above, left), (down, across) = tiling.pad, tiling.kernel
    height, width = top.shape[2] + down - 1 - 2 * above, top.shape[3] + across - 1 - 2 * left
    inside = largest[above : above + height, left : left + width]
    if above < down and left < across and bool((inside != 0).all()):
        return
    windows = functional.max_pool2d(largest.permute(2, 0, 1).unsqueeze(1), tiling.kernel, 1)
    empty = (windows == 0)[:, :, : top.shape[2], : top.shape[3]]
    values = torch.zeros((), dtype=top.dtype) if bias is None else bias.view(-1, 1, 1)
    top.copy_(torch.where(empty, values, top))


def from_tiles(tiles: Tensor, x: Tensor, tiling: Tiling) -> None:
    """Write the adjoint of `padded` and `to_tiles` to x; where tiles overlap, their values are added."""
    rows, channels, height, width = x.shape
    (length, breadth), (down, across) = tiling.lengths, tiling.outputs
    parts = tiles.view(length, breadth, channels, *tiling.counts, rows)
    if tiling.counts == (1, 1):
        image = parts[:, :, :, 0, 0]
    else:
        image = tiles.new_zeros(*tiling.covered, channels, rows)
        for i in range(tiling.counts[0]):
            for j in range(tiling.counts[1]):
                overlap = image[i * down : i * down + length, j * across : j * across + breadth]
                overlap += parts[:, :, :, i, j]
    top, left = tiling.pad
    _transpose_into(x, image[top : top + height, left : left + width])


def from_outputs(outputs: Tensor, y: Tensor, tiling: Tiling) -> None:
    """Write (T, T', K, tiles N) to y, (N, K, H, W), without the excess of the last tiles."""
    (down, across), (rows, channels, height, width) = tiling.outputs, y.shape
    positions = outputs.view(down, across, channels, *tiling.counts, rows).permute(3, 0, 4, 1, 2, 5)
    whole = positions.reshape(tiling.counts[0] * down, tiling.counts[1] * across, channels, rows)
    _transpose_into(y, whole[:height, :width])


def to_outputs(gradient: Tensor, tiling: Tiling) -> Tensor:
    """Apply the adjoint of `from_outputs`: (N, K, H, W) -> (T, T', K, tiles N)."""
    (down, across), counts = tiling.outputs, tiling.counts
    rows, channels, height, width = gradient.shape
    values = _rows_innermost(gradient)
    if (counts[0] * down, counts[1] * across) != (height, width):
        part = values
        values = gradient.new_zeros(counts[0] * down, counts[1] * across, channels, rows)
        values[:height, :width] = part
    parts = values.view(counts[0], down, counts[1], across, channels, rows)
    return parts.permute(1, 3, 4, 0, 2, 5).reshape(down, across, channels, -1)


def _rows_innermost(x: Tensor) -> Tensor:
    """Transpose (N, C, H, W) -> (H, W, C, N), contiguous."""
    rows, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(rows, -1).t().contiguous().view(height, width, channels, rows)


def _transpose_into(x: Tensor, values: Tensor) -> None:
    """Write (H, W, C, N) to x, (N, C, H, W) with channels innermost in memory."""
    rows = len(x)
    x.permute(0, 2, 3, 1).view(rows, -1).copy_(values.reshape(-1, rows).t())
