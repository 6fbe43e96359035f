"""Convolution by spectra, where a training step costs less so (docs/decisions/0013)."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

from siamese_proto.graph.ir import Graph, Node, Shape
from siamese_proto.layers.convolution import Convolution
from siamese_proto.optimize.rewriting import Rewritten, free_id, is_ordinary

if TYPE_CHECKING:
    from torch import Tensor

    from siamese_proto.layers.convolution import Operation
    from siamese_proto.optimize.spectral_kernel import Tiling

Pair = tuple[int, int]
_MANY_ROWS = 256  # of a batch

# Nanoseconds on one core, forward and backward together, as measured; what matters is how they compare.
_MULTIPLY_ADD = 3 / 45  # of products of matrices
_DIRECT_MULTIPLY_ADD = 3 / 52  # of direct convolutions, of numbers inside the picture
_VECTOR = 16  # channels that the direct way goes through at once
_DIRECT_CALLS, _CALLS = 250_000, 1_000_000  # of all calls that a step takes
_MOVED = 1.3  # a number of what lies between two products
_OF_KERNELS = {False: 3, True: 8}  # a number of the kernels' spectra, while they fit into a cache, and beyond
_CACHED = 8_000_000  # numbers
_CUT = 1.3  # how much longer pictures take that are cut
# How much longer the direct way must take to be left, on one thread and on several: these share it better.
WORTH = {False: 1.12, True: 1.3}
_FEWEST_CHANNELS, _FEW_CHANNELS = 8, 32
_MOST_TILES = 8  # a dimension


def convolve_by_spectra(graph: Graph) -> Rewritten:
    """Replace each Convolution that can gain, with a large batch at least, by one that can use spectra."""
    ids = {node.id for node in graph.nodes}
    nodes = []
    for node in graph.nodes:
        if _can_gain(node):
            layer = ConvolutionBySpectrum(node.message, node.layer.context)  # type: ignore[union-attr]  # a Convolution
            node = replace(node, id=free_id(f"{node.id}_by_spectrum", ids), layer=layer)
        nodes.append(node)
    return Rewritten(replace(graph, nodes=tuple(nodes)))


def _can_gain(node: Node) -> bool:
    written, shape = node.layer, node.bottoms[0].shape if node.bottoms else None
    if type(written) is not Convolution or written.axis != 1 or shape is None or len(shape) != 4:
        return False
    layer = ConvolutionBySpectrum(node.message, written.context)
    return layer.tiling((_MANY_ROWS, *shape[1:]), layer.num_output, worth=min(WORTH.values())) is not None


class ConvolutionBySpectrum(Convolution):
    """A Convolution that uses spectra in training passes if that takes less time.

    In float32 on the CPU. Otherwise, and if only outputs are needed, it computes directly.
    """

    def operation(self, rank: int) -> Operation:
        import torch

        from siamese_proto.optimize.spectral_kernel import convolve_by_spectrum

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
                return direct(x, weight, bias)  # many small products, for each of which threads wait for one another
            tiling = self.tiling(tuple(x.shape), self.num_output, worth=WORTH[shared])
            return direct(x, weight, bias) if tiling is None else convolve_by_spectrum(x, weight, bias, tiling)

        return convolve

    def tiling(self, bottom: Shape, outputs: int, *, worth: float) -> Tiling | None:
        """How to cut a bottom (N, C, H, W); None where the direct way is reckoned to take less than `worth` of it."""
        kernel, stride, pad, dilation = self.windows(2)
        if self.group > 1 or {*stride, *dilation} != {1} or bottom[1] < _FEWEST_CHANNELS:
            return None
        return best_tiling(bottom, outputs, (kernel[0], kernel[1]), (pad[0], pad[1]), worth=worth)


@functools.lru_cache(maxsize=256)
def best_tiling(bottom: Shape, outputs: int, kernel: Pair, pad: Pair, *, worth: float) -> Tiling | None:
    """The tiles that cost least, for a bottom (N, C, H, W); None where the direct way costs less than `worth` of it."""
    from siamese_proto.optimize.spectral_kernel import Tiling

    rows, channels, height, width = bottom
    size = (height + 2 * pad[0] - kernel[0] + 1, width + 2 * pad[1] - kernel[1] + 1)
    if min(size) < 1:
        return None
    most = _MOST_TILES if channels > _FEW_CHANNELS else 1  # cutting costs more than it gains where there are few
    tilings = [
        Tiling((down, across), (-(-size[0] // down), -(-size[1] // across)), kernel, pad)
        for down, across in itertools.product(*(range(1, min(length, most) + 1) for length in size))
    ]
    cost, best = min(((_cost(tiling, rows, channels, outputs), tiling) for tiling in tilings), key=lambda pair: pair[0])
    return best if _direct_cost(bottom, outputs, kernel, pad) > worth * cost else None


def _direct_cost(bottom: Shape, outputs: int, kernel: Pair, pad: Pair) -> float:
    """Nanoseconds of a step by direct convolutions, which fill up channels to whole vectors and leave out pads."""
    rows, channels, height, width = bottom
    inside = _seen(height, kernel[0], pad[0]) * _seen(width, kernel[1], pad[1])
    # The forward pass fills up the outputs, that to the bottom the channels, that to the weight the worse of both.
    filled = [-(-count // _VECTOR) * _VECTOR / count for count in (channels, outputs)]
    factor = (sum(filled) + max(filled)) / 3
    return _DIRECT_CALLS + _DIRECT_MULTIPLY_ADD * factor * rows * inside * channels * outputs


def _seen(length: int, window: int, zeros: int) -> int:
    """How many numbers of a picture all windows along one dimension see together, pads left out."""
    whole = max(0, length - window + 1)  # windows inside the picture
    over_the_edges = (*range(-zeros, min(0, length + zeros - window + 1)), *range(whole, length + zeros - window + 1))
    total: int = whole * window + sum(max(0, min(length, at + window) - max(0, at)) for at in over_the_edges)
    return total


def _cost(tiling: Tiling, rows: int, channels: int, outputs: int) -> float:
    """Nanoseconds of a step by spectra."""
    (height, width), (down, across), frequencies = tiling.lengths, tiling.outputs, tiling.frequencies
    half = height // 2 + 1
    of_bottom = 2 * half * height * width + 4 * half * width * width  # multiply-adds of a channel's two transforms
    of_top = 4 * half * across * width + 2 * half * down * across
    of_kernel = 2 * half * tiling.kernel[0] * tiling.kernel[1] + 4 * half * width * tiling.kernel[1]
    parts = rows * tiling.counts[0] * tiling.counts[1]
    products = 4 * frequencies * channels * outputs
    multiply_adds = parts * (products + channels * of_bottom + outputs * of_top) + channels * outputs * of_kernel
    in_bottom = height * width + 2 * half * width + 2 * frequencies  # numbers of a channel, from step to step
    in_top = 2 * frequencies + 2 * half * across + down * across
    moved = parts * (channels * in_bottom + outputs * in_top)
    cost = _MULTIPLY_ADD * multiply_adds + _MOVED * moved + _OF_KERNELS[products > _CACHED] * products
    return _CALLS + cost * (_CUT if tiling.counts != (1, 1) else 1)
