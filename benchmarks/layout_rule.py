"""Find out which convolutions gain from channels last on this machine, and whether the rule of Convolution agrees.

    python benchmarks/layout_rule.py [--threads 1] [--rounds 7] [--quick]

Forward and backward of one convolution in both layouts, in turns; the ratio is channels first over channels last, of
the least times, so above 1 channels last gain. The last column is what the rule does; a `!` marks where it loses more
than 5 %.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

import siamese_proto as sp
from siamese_proto.layers.convolution import Convolution, channels_last, gains_from_channels_last


@dataclass(frozen=True)
class Shape:
    """A convolution over square images."""

    rows: int
    channels: int
    side: int
    outputs: int
    kernel: int
    group: int = 1
    dilation: int = 1

    def __str__(self) -> str:
        more = f", group {self.group}" * (self.group > 1) + f", dilation {self.dilation}" * (self.dilation > 1)
        return f"{self.rows} x {self.channels} x {self.side}^2, {self.outputs} @ {self.kernel}x{self.kernel}{more}"


def shapes(*, quick: bool) -> Iterator[Shape]:
    """Return typical convolutions: few and many channels, small and large windows, groups and dilation."""
    for rows in (16,) if quick else (2, 16, 128):
        for channels, side in ((1, 28), (3, 64), (20, 12), (32, 28), (48, 28), (64, 28), (128, 14)):
            for kernel in (3, 5, 7) if quick else (1, 3, 5, 7, 11):
                if kernel <= side // 2:
                    yield Shape(rows, channels, side, 64 if channels > 32 else 32, kernel)
    yield Shape(8, 1, 105, 64, 10)
    yield Shape(8, 3, 105, 96, 11)
    yield Shape(16, 64, 28, 64, 3, group=64)
    yield Shape(8, 32, 28, 32, 3, dilation=2)


def layer_of(shape: Shape) -> tuple[Convolution, sp.Net]:
    """Return our layer with these settings, in a separate net."""
    text = (
        'layer { name: "in" type: "Input" top: "x" input_param { shape { '
        f"dim: {shape.rows} dim: {shape.channels} dim: {shape.side} dim: {shape.side} }} }} }}\n"
        f'layer {{ name: "conv" type: "Convolution" bottom: "x" top: "y" convolution_param {{ num_output: '
        f"{shape.outputs} kernel_size: {shape.kernel} group: {shape.group} dilation: {shape.dilation} "
        'weight_filler { type: "xavier" } } }'
    )
    net = sp.Net(text, seed=1)
    layer = net.graph.nodes[1].layer
    assert isinstance(layer, Convolution)  # as written above
    return layer, net


def passes(shape: Shape, weight: Tensor, *, last: bool) -> Callable[[], object]:
    """Run forward and backward in one layout; the image needs a gradient unless it has one or three channels."""
    draw = torch.Generator().manual_seed(1)
    x = torch.rand(shape.rows, shape.channels, shape.side, shape.side, generator=draw)
    x, weight = (channels_last(x), channels_last(weight)) if last else (x, weight.contiguous())
    x.requires_grad_(shape.channels > 3)
    weight = weight.detach().requires_grad_()
    leaves = [leaf for leaf in (x, weight) if leaf.requires_grad]
    settings = (None, 1, 0, shape.dilation, shape.group)
    with torch.no_grad():
        gradient = torch.ones_like(functional.conv2d(x, weight, *settings))
    return lambda: torch.autograd.grad(functional.conv2d(x, weight, *settings), leaves, gradient)


def gain(shape: Shape, weight: Tensor, rounds: int) -> float:
    """Return the minimum time with channels first divided by that with channels last."""
    works = [passes(shape, weight, last=last) for last in (False, True)]
    least = [float("inf")] * 2
    for turn in range(rounds + 1):
        for index, work in enumerate(works):
            begin = time.perf_counter()
            work()
            if turn:
                least[index] = min(least[index], time.perf_counter() - begin)
    return least[0] / least[1]


def main() -> None:
    """Measure all cases and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="A third of the shapes.")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| input, windows | channels first / last | the rule |\n|---|---|---|")
    lost = 0
    for shape in shapes(quick=arguments.quick):
        _, net = layer_of(shape)
        weight = net.params["conv"][0].detach()
        ratio = gain(shape, weight, arguments.rounds)
        takes = gains_from_channels_last(tuple(weight.shape))
        is_lost = (ratio < 0.95) if takes else (ratio > 1.05)
        lost += is_lost
        print(f"| {shape} | {ratio:.2f} | {'last' if takes else 'first'}{' !' * is_lost} |", flush=True)
    print(f"\nthe rule loses more than 5 % in {lost} of them")


if __name__ == "__main__":
    main()
