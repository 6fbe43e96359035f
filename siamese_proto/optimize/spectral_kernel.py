"""Convolution as products of spectra: what large kernels over small pictures cost least as.

A picture is cut into tiles. The discrete Fourier transform of a tile, times the conjugate transform of the kernel, is
the transform of their correlation (Mathieu, Henaff and LeCun, Fast training of convolutional networks through FFTs,
2013). Tiles are small, so that transforms are products with matrices, and frequency by frequency what is left is a
product of matrices too. In between rows lie innermost in memory, (H, W, C, N), which makes all of these products of
contiguous matrices. Errors are shares of the largest values of a tile, no larger than those of the direct way.

Of shapes N are rows, C and K channels of bottom and top, L and L' height and width of a tile, T and T' those of what it
gives of the top, F its frequencies, and R rows times tiles.
"""

from __future__ import annotations

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
_FEW_TILES, _MANY_TILES = 32, 64  # at once, as measured; many where the kernels' spectra are large
_LARGE_KERNELS = 2**20  # numbers


@dataclass(frozen=True)
class Tiling:
    """How pictures are cut, down and across: so many tiles, each of which gives `outputs` places of the top."""

    counts: Pair
    outputs: Pair
    kernel: Pair
    pad: Pair

    @property
    def lengths(self) -> Pair:
        """The size of a tile: tiles overlap by the kernel less one."""
        return self.outputs[0] + self.kernel[0] - 1, self.outputs[1] + self.kernel[1] - 1

    @property
    def needed(self) -> Pair:
        """The size of a picture that all tiles together take."""
        down, across = (self.counts[i] * self.outputs[i] + self.kernel[i] - 1 for i in (0, 1))
        return down, across

    @property
    def frequencies(self) -> int:
        """How many a tile has: down it half of them, for the others are their conjugates."""
        height, width = self.lengths
        return (height // 2 + 1) * width


def convolve_by_spectrum(x: Tensor, weight: Tensor, bias: Tensor | None, tiling: Tiling) -> Tensor:
    """The convolution of x (N, C, H, W) with weight (K, C, h, w) and stride 1, channels innermost in memory.

    (N, K, H + 2 pad - h + 1, W + 2 pad - w + 1), float32 on the CPU
    """
    found = SpectralConvolution.apply(x, weight, bias, tiling)  # type: ignore[no-untyped-call]  # torch leaves apply without types
    return cast(Tensor, found)


class SpectralConvolution(torch.autograd.Function):
    """`Y_f = conj(W_f) X_f`, and so `dX_f = W_f dY_f` and `dW_f = dY_f conj(X_f)` for every frequency f.

    Complex numbers are written as two real ones: the matrix of W_f is [[p, -q], [q, p]], (2 K, 2 C).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, tiling: Tiling) -> Tensor:
        by = transforms(tiling)
        kernels = by.of_kernel(weight)  # (F, 2 K, 2 C)
        size = [x.shape[i + 2] + 2 * tiling.pad[i] - tiling.kernel[i] + 1 for i in (0, 1)]
        y = _empty(x, (len(x), len(weight), *size))
        spectra = []  # (F, 2 C, R) each, R rows and tiles
        for rows, top in zip(*(_parts(tensor, tiling, kernels) for tensor in (x, y)), strict=True):
            picture = padded(rows, tiling)
            spectrum = by.of_picture(to_tiles(picture, tiling))
            places = by.to_top(torch.bmm(kernels, spectrum), len(weight))  # (T, T', K, R)
            if bias is not None:
                places += bias[:, None]
            from_outputs(places, top, tiling)
            settle_empty_windows(top, picture, bias, tiling)
            spectra.append(spectrum)
        ctx.save_for_backward(weight, *spectra)
        ctx.tiling, ctx.bottom = tiling, x.shape
        return y

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, *spectra = ctx.saved_tensors
        tiling, bottom = ctx.tiling, ctx.bottom
        by = transforms(tiling)
        kernels = by.of_kernel(weight)  # again: it is quick, and they are many times as large as the weight
        to_bottom, to_weight, to_bias = ctx.needs_input_grad[:3]
        of_bottom = _empty(gradient, bottom)
        of_kernels = torch.zeros_like(kernels)
        parts = (_parts(tensor, tiling, kernels) for tensor in (gradient, of_bottom))
        for spectrum, rows, of_rows in zip(spectra, *parts, strict=True):
            of_top = by.of_top(to_outputs(rows, tiling))  # (F, 2 K, R)
            if to_weight:
                of_kernels.baddbmm_(of_top, spectrum.transpose(1, 2))
            if to_bottom:
                from_tiles(by.to_picture(torch.bmm(kernels.transpose(1, 2), of_top), bottom[1]), of_rows, tiling)
            del of_top  # so that there is room for the next
        return (
            of_bottom if to_bottom else None,
            by.to_kernel(of_kernels, weight.shape) if to_weight else None,
            gradient.sum((0, 2, 3)) if to_bias else None,
            None,
        )


def _empty(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Room for (N, C, H, W), channels innermost in memory."""
    layout = torch.channels_last
    return torch.empty(tuple(shape), dtype=like.dtype, device=like.device, memory_format=layout)


def _parts(tensor: Tensor, tiling: Tiling, kernels: Tensor) -> tuple[Tensor, ...]:
    """Some rows at a time: what lies between two products is then small, and still in a cache.

    More of them where the kernels' spectra, which are read for each part, are large themselves.
    """
    tiles = _MANY_TILES if kernels.numel() > _LARGE_KERNELS else _FEW_TILES
    return torch.split(tensor, max(1, tiles // (tiling.counts[0] * tiling.counts[1])))


@dataclass(frozen=True)
class Transforms:
    """Fourier transforms of tiles as matrices of real numbers; a complex number is two rows, real and imaginary.

    First down the tile, where what is transformed is real and half of the frequencies will do, then across.
    """

    down: Tensor  # (2 F, L): tiles
    across: Tensor  # (2 L', 2 L')
    down_kernel: Tensor  # (2 F, h): kernels, conjugate
    across_kernel: Tensor  # (2 L', 2 w)
    back_across: Tensor  # (2 T', 2 L'): from the spectrum to the top
    back_down: Tensor  # (T, 2 F)

    def of_picture(self, tiles: Tensor) -> Tensor:
        """(L, L', C, R) -> (F, 2 C, R)."""
        return _into(tiles, self.down, self.across)

    def to_picture(self, spectrum: Tensor, channels: int) -> Tensor:
        """The adjoint of `of_picture`: (F, 2 C, R) -> (L, L', C, R)."""
        return _back(spectrum, self.across.t(), self.down.t(), channels)

    def to_top(self, spectrum: Tensor, channels: int) -> Tensor:
        """The places of the top that a tile gives: (F, 2 K, R) -> (T, T', K, R)."""
        return _back(spectrum, self.back_across, self.back_down, channels)

    def of_top(self, gradient: Tensor) -> Tensor:
        """The adjoint of `to_top`: (T, T', K, R) -> (F, 2 K, R)."""
        return _into(gradient, self.back_down.t(), self.back_across.t())

    def of_kernel(self, weight: Tensor) -> Tensor:
        """(K, C, h, w) -> (F, 2 K, 2 C), the matrices [[p, -q], [q, p]]."""
        outputs, channels = weight.shape[:2]
        parts = _into(weight.permute(2, 3, 0, 1), self.down_kernel, self.across_kernel)
        p, q = parts.view(-1, 2, outputs, channels).unbind(1)  # (F, K, C)
        kernels = p.new_empty(len(p), 2, outputs, 2, channels)
        kernels[:, 0, :, 0] = p
        kernels[:, 1, :, 1] = p
        kernels[:, 1, :, 0] = q
        torch.neg(q, out=kernels[:, 0, :, 1])
        return kernels.view(-1, 2 * outputs, 2 * channels)

    def to_kernel(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        """The adjoint of `of_kernel`: (F, 2 K, 2 C) -> (K, C, h, w)."""
        outputs, channels = shape[:2]
        parts = gradient.view(-1, 2, outputs, 2, channels)
        summed = gradient.new_empty(len(gradient), 2 * outputs, channels)
        torch.add(parts[:, 0, :, 0], parts[:, 1, :, 1], out=summed[:, :outputs])
        torch.sub(parts[:, 1, :, 0], parts[:, 0, :, 1], out=summed[:, outputs:])
        return _back(summed, self.across_kernel.t(), self.down_kernel.t(), outputs).permute(2, 3, 0, 1)


def _into(places: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """(L, L', C, R) -> (frequencies, 2 C, R)."""
    height, width, channels, rows = places.shape
    halves = torch.mm(down, places.reshape(height, -1)).view(-1, 2 * width, channels * rows)
    return torch.matmul(across, halves).view(-1, 2 * channels, rows)


def _back(spectrum: Tensor, across: Tensor, down: Tensor, channels: int) -> Tensor:
    """(frequencies, 2 C, R) -> (L, L', C, R)."""
    rows = spectrum.shape[2]
    halves = torch.matmul(across, spectrum.view(-1, across.shape[1], channels * rows))
    return torch.mm(down, halves.view(down.shape[1], -1)).view(len(down), -1, channels, rows)


@functools.lru_cache(maxsize=64)
def transforms(tiling: Tiling) -> Transforms:
    """The matrices for tiles of one size, computed in double precision."""
    with torch.device("cpu"):  # whatever device was set for other tensors: these are kept
        return _transforms(tiling)


def _transforms(tiling: Tiling) -> Transforms:
    (height, width), (rows, columns) = tiling.lengths, tiling.outputs
    half = height // 2 + 1
    real, imaginary = torch.eye(2, dtype=torch.float64)
    # A real number x turns to x exp(-i a): of its two rows the first is its cosine, the second less its sine.
    down = _turned(_angles(half, height, height), real, -imaginary)  # (half, 2, height)
    down_kernel = _turned(_angles(half, tiling.kernel[0], height), real, imaginary)
    back_down = _turned(_angles(half, rows, height), real, -imaginary)
    # Those left out count for as much as their conjugates do.
    once = torch.tensor([0, height // 2]) if height % 2 == 0 else torch.tensor([0])
    counts = torch.full((half, 1, 1), 2.0, dtype=torch.float64).index_fill_(0, once, 1.0)
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


def _angles(frequencies: int, places: int, length: int) -> Tensor:
    """(frequencies, places): how far each frequency has turned at each place."""
    turns = torch.outer(torch.arange(frequencies), torch.arange(places)) % length
    return turns.double() * (2 * math.pi / length)


def _turned(angles: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """(F, P) -> (F, 2, P), of a real number the two parts."""
    return angles.cos().unsqueeze(1) * cosine[:, None] + angles.sin().unsqueeze(1) * sine[:, None]


def _complex(angles: Tensor, sign: int, *, spectrum_is_last: bool = False) -> Tensor:
    """`exp(sign i angle)` as a matrix of real numbers: (A, B) -> (2 A, 2 B).

    The two parts of a frequency stand side by side, those of a place apart: all real ones, then all imaginary ones.
    """
    cosine, sine = angles.cos(), sign * angles.sin()
    blocks = torch.stack([torch.stack([cosine, -sine]), torch.stack([sine, cosine])])  # (to part, from part, A, B)
    order = (0, 2, 3, 1) if spectrum_is_last else (2, 0, 1, 3)
    return blocks.permute(order).reshape(2 * len(angles), -1)


def padded(x: Tensor, tiling: Tiling) -> Tensor:
    """(N, C, H, W) -> (H', W', C, N) with zeros around, as large as all tiles together."""
    rows, channels, height, width = x.shape
    turned = _rows_innermost(x)
    needed = tiling.needed
    if needed == (height, width):
        return turned
    picture = x.new_zeros(*needed, channels, rows)
    top, left = tiling.pad
    picture[top : top + height, left : left + width] = turned
    return picture


def to_tiles(picture: Tensor, tiling: Tiling) -> Tensor:
    """(H', W', C, N) -> (L, L', C, tiles N), each tile with what it shares with the next."""
    (length, breadth), (down, across) = tiling.lengths, tiling.outputs
    tiles = picture.unfold(0, length, down).unfold(1, breadth, across)
    return tiles.permute(4, 5, 2, 0, 1, 3).reshape(length, breadth, picture.shape[2], -1)


def settle_empty_windows(top: Tensor, picture: Tensor, bias: Tensor | None, tiling: Tiling) -> None:
    """Set top (N, K, H, W) to the bias itself where a window of the picture (H', W', C, N) holds zeros alone.

    There the direct way has no rounding, and the slope of a ReLU behind hangs on the sign.
    """
    largest = picture.abs().amax(2)  # (H', W', N)
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
    """The adjoint of `padded` and `to_tiles`, into x: what several tiles share is added up."""
    rows, channels, height, width = x.shape
    (length, breadth), (down, across) = tiling.lengths, tiling.outputs
    parts = tiles.view(length, breadth, channels, *tiling.counts, rows)
    if tiling.counts == (1, 1):
        picture = parts[:, :, :, 0, 0]
    else:
        picture = tiles.new_zeros(*tiling.needed, channels, rows)
        for i in range(tiling.counts[0]):
            for j in range(tiling.counts[1]):
                place = picture[i * down : i * down + length, j * across : j * across + breadth]
                place += parts[:, :, :, i, j]
    top, left = tiling.pad
    _turn_into(x, picture[top : top + height, left : left + width])


def from_outputs(places: Tensor, y: Tensor, tiling: Tiling) -> None:
    """(T, T', K, tiles N) into y, (N, K, H, W), without what the last tiles have too much."""
    (down, across), (rows, channels, height, width) = tiling.outputs, y.shape
    placed = places.view(down, across, channels, *tiling.counts, rows).permute(3, 0, 4, 1, 2, 5)
    whole = placed.reshape(tiling.counts[0] * down, tiling.counts[1] * across, channels, rows)
    _turn_into(y, whole[:height, :width])


def to_outputs(gradient: Tensor, tiling: Tiling) -> Tensor:
    """The adjoint of `from_outputs`: (N, K, H, W) -> (T, T', K, tiles N)."""
    (down, across), counts = tiling.outputs, tiling.counts
    rows, channels, height, width = gradient.shape
    turned = _rows_innermost(gradient)
    if (counts[0] * down, counts[1] * across) != (height, width):
        part = turned
        turned = gradient.new_zeros(counts[0] * down, counts[1] * across, channels, rows)
        turned[:height, :width] = part
    parts = turned.view(counts[0], down, counts[1], across, channels, rows)
    return parts.permute(1, 3, 4, 0, 2, 5).reshape(down, across, channels, -1)


def _rows_innermost(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (H, W, C, N), contiguous."""
    rows, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(rows, -1).t().contiguous().view(height, width, channels, rows)


def _turn_into(x: Tensor, turned: Tensor) -> None:
    """(H, W, C, N) into x, (N, C, H, W) with channels innermost in memory."""
    rows = len(x)
    x.permute(0, 2, 3, 1).view(rows, -1).copy_(turned.reshape(-1, rows).t())
