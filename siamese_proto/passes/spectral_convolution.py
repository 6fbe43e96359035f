"""Compute convolutions by spectra if that makes a training step faster (docs/decisions/0013)."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

from siamese_proto.graph.ir import Graph, Node, Shape
from siamese_proto.layers.convolution import Convolution
from siamese_proto.passes.rewriting import Rewritten, free_id, is_ordinary

if TYPE_CHECKING:
    from torch import Tensor

    from siamese_proto.layers.convolution import Operation
    from siamese_proto.passes.spectral_kernel import Tiling

Pair = tuple[int, int]
_MANY_ROWS = 256  # of a batch

# Estimated nanoseconds on one core, forward and backward together; only their ratios matter.
_MULTIPLY_ADD = 3 / 45  # in products of matrices
_DIRECT_MULTIPLY_ADD = 3 / 52  # in direct convolutions, for numbers inside the image
_VECTOR = 16  # channels that direct convolution processes together
_DIRECT_CALLS, _CALLS = 250_000, 1_000_000  # overhead of the calls of a step
_MOVED = 1.3  # per number read and written between two products
_OF_KERNELS = {False: 3, True: 8}  # per number of the kernels' spectra, by whether they exceed the cache
_CACHED = 8_000_000  # numbers
_CUT = 1.3  # factor for images cut into several tiles
# Direct convolution must take longer by this factor, by whether there are several threads, which it uses better.
WORTH = {False: 1.12, True: 1.3}
_FEWEST_CHANNELS, _FEW_CHANNELS = 8, 32
_MOST_TILES = 8  # per dimension


def convolve_by_spectra(graph: Graph) -> Rewritten:
    """Replace each Convolution that spectra make faster, at least for a large batch, by one that can use them."""
    ids = {node.id for node in graph.nodes}
    nodes = []
    for node in graph.nodes:
        if _can_use_spectra(node):
            layer = ConvolutionBySpectrum(node.message, node.layer.context)  # type: ignore[union-attr]  # a Convolution
            node = replace(node, id=free_id(f"{node.id}_by_spectrum", ids), layer=layer)
        nodes.append(node)
    return Rewritten(replace(graph, nodes=tuple(nodes)))


def _can_use_spectra(node: Node) -> bool:
    layer, shape = node.layer, node.bottoms[0].shape if node.bottoms else None
    if type(layer) is not Convolution or layer.axis != 1 or shape is None or len(shape) != 4:
        return False
    layer = ConvolutionBySpectrum(node.message, layer.context)
    return layer.tiling((_MANY_ROWS, *shape[1:]), layer.num_output, worth=min(WORTH.values())) is not None


class ConvolutionBySpectrum(Convolution):
    """A Convolution that uses spectra in training passes if that takes less time.

    In float32 on the CPU. Otherwise, and if only outputs are needed, it computes directly.
    """

    def operation(self, rank: int) -> Operation:
        import torch

        from siamese_proto.passes.spectral_kernel import convolve_by_spectrum

        direct = super().operation(rank)
        if rank != 2:
            return direct

        def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            trains = torch.is_grad_enabled() and x.requires_grad and weight.requires_grad
            if not trains or x.dtype != torch.float32 or not x.is_cpu:
                return direct(x, weight, bias)
            if torch.is_autocast_enabled("cpu") or not is_ordinary():
                return direct(x, weight, bias)
            shared = torch.get_num_threads() > 1
            if shared and x.shape[1] <= _FEW_CHANNELS:
                return direct(x, weight, bias)  # threads would wait for one another at each of many small products
            tiling = self.tiling(tuple(x.shape), self.num_output, worth=WORTH[shared])
            return direct(x, weight, bias) if tiling is None else convolve_by_spectrum(x, weight, bias, tiling)

        return convolve

    def tiling(self, bottom: Shape, outputs: int, *, worth: float) -> Tiling | None:
        """Return how to cut a bottom (N, C, H, W); None if direct convolution takes less than `worth` times as long."""
        kernel, stride, pad, dilation = self.windows(2)
        if self.group > 1 or {*stride, *dilation} != {1} or bottom[1] < _FEWEST_CHANNELS:
            return None
        return best_tiling(bottom, outputs, (kernel[0], kernel[1]), (pad[0], pad[1]), worth=worth)


@functools.lru_cache(maxsize=256)
def best_tiling(bottom: Shape, outputs: int, kernel: Pair, pad: Pair, *, worth: float) -> Tiling | None:
    """Return the fastest tiles for a bottom (N, C, H, W); None if direct convolution is estimated to be fast enough.

    Args:
        bottom: Shape of the bottom.
        outputs: Number of channels of the top.
        kernel: Height and width of the kernel.
        pad: Zeros above and left of the image.
        worth: Minimum of the time of direct convolution divided by the time by spectra.
    """
    from siamese_proto.passes.spectral_kernel import Tiling

    rows, channels, height, width = bottom
    size = (height + 2 * pad[0] - kernel[0] + 1, width + 2 * pad[1] - kernel[1] + 1)
    if min(size) < 1:
        return None
    most = _MOST_TILES if channels > _FEW_CHANNELS else 1  # with few channels, cutting takes longer than it saves
    tilings = [
        Tiling((down, across), (-(-size[0] // down), -(-size[1] // across)), kernel, pad)
        for down, across in itertools.product(*(range(1, min(length, most) + 1) for length in size))
    ]
    cost, best = min(((_cost(tiling, rows, channels, outputs), tiling) for tiling in tilings), key=lambda pair: pair[0])
    return best if _direct_cost(bottom, outputs, kernel, pad) > worth * cost else None


def _direct_cost(bottom: Shape, outputs: int, kernel: Pair, pad: Pair) -> float:
    """Estimate the nanoseconds of a direct step, which fills channels up to whole vectors and skips pads."""
    rows, channels, height, width = bottom
    inside = _numbers_inside(height, kernel[0], pad[0]) * _numbers_inside(width, kernel[1], pad[1])
    # Forward fills up the outputs; backward to the bottom the channels, and to the weight the worse of both.
    filled = [-(-count // _VECTOR) * _VECTOR / count for count in (channels, outputs)]
    factor = (sum(filled) + max(filled)) / 3
    return _DIRECT_CALLS + _DIRECT_MULTIPLY_ADD * factor * rows * inside * channels * outputs


def _numbers_inside(length: int, window: int, zeros: int) -> int:
    """Count the numbers of all windows along one dimension that are inside the image."""
    whole = max(0, length - window + 1)  # windows inside the image
    over_the_edges = (*range(-zeros, min(0, length + zeros - window + 1)), *range(whole, length + zeros - window + 1))
    total: int = whole * window + sum(max(0, min(length, start + window) - max(0, start)) for start in over_the_edges)
    return total


def _cost(tiling: Tiling, rows: int, channels: int, outputs: int) -> float:
    """Estimate the nanoseconds of a step by spectra."""
    (height, width), (down, across), frequencies = tiling.lengths, tiling.outputs, tiling.frequencies
    half = height // 2 + 1
    of_bottom = 2 * half * height * width + 4 * half * width * width  # multiply-adds of two transforms, per channel
    of_top = 4 * half * across * width + 2 * half * down * across
    of_kernel = 2 * half * tiling.kernel[0] * tiling.kernel[1] + 4 * half * width * tiling.kernel[1]
    parts = rows * tiling.counts[0] * tiling.counts[1]
    products = 4 * frequencies * channels * outputs
    multiply_adds = parts * (products + channels * of_bottom + outputs * of_top) + channels * outputs * of_kernel
    in_bottom = height * width + 2 * half * width + 2 * frequencies  # numbers per channel after each step
    in_top = 2 * frequencies + 2 * half * across + down * across
    moved = parts * (channels * in_bottom + outputs * in_top)
    cost = _MULTIPLY_ADD * multiply_adds + _MOVED * moved + _OF_KERNELS[products > _CACHED] * products
    return _CALLS + cost * (_CUT if tiling.counts != (1, 1) else 1)
