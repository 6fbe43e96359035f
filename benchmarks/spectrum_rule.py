"""Find out which convolutions are faster by spectra, and whether the rule agrees.

    python benchmarks/spectrum_rule.py [--threads 1] [--rounds 9]

Forward and backward, both gradients, in turns; direct convolution in the faster of both layouts. The ratio is the time
of direct convolution divided by that by spectra: above 1 spectra are faster. "chosen" is the choice of
passes/spectral_convolution.py.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from measuring import Work, fastest, in_turns, milliseconds, ratio
from torch import Tensor
from torch.nn import functional

from siamese_proto.passes import spectral_convolution as spectrum
from siamese_proto.passes.spectral_kernel import Tiling, convolve_by_spectrum


@dataclass(frozen=True)
class Case:
    """A convolution: rows, channels, outputs, height and width, kernel, pad."""

    rows: int
    channels: int
    outputs: int
    size: int
    kernel: int
    pad: int

    def __str__(self) -> str:
        pad = f", pad {self.pad}" if self.pad else ""
        shape = f"{self.rows} x {self.channels} x {self.size} x {self.size}"
        return f"{shape}, {self.outputs} @ {self.kernel}x{self.kernel}{pad}"

    def tiling(self, *, worth: float) -> Tiling | None:
        """Return the best tiles if direct convolution is estimated to take at least `worth` times as long."""
        bottom = (self.rows, self.channels, self.size, self.size)
        return spectrum.best_tiling(bottom, self.outputs, (self.kernel,) * 2, (self.pad,) * 2, worth=worth)


CASES = (
    Case(128, 20, 50, 12, 5, 0),  # conv2 of two LeNet towers, batch 64
    Case(64, 20, 50, 12, 5, 0),
    Case(32, 20, 50, 12, 5, 0),
    Case(8, 20, 50, 12, 5, 0),
    Case(256, 64, 128, 11, 5, 0),  # mnist_pair_classifier
    Case(256, 128, 256, 7, 5, 0),
    Case(32, 64, 128, 48, 7, 0),  # oneshot_siamese
    Case(32, 128, 128, 21, 4, 0),
    Case(32, 128, 256, 9, 4, 0),
    Case(16, 96, 256, 47, 5, 2),  # signature_siamese
    Case(16, 256, 384, 23, 3, 1),
    Case(64, 32, 64, 14, 5, 2),
    Case(64, 32, 64, 14, 3, 1),
    Case(64, 16, 32, 28, 5, 0),
)


def step(case: Case, tiling: Tiling | None, *, channels_last: bool) -> Work:
    """Run forward and backward this many times."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    draw = torch.Generator().manual_seed(1)
    x = torch.rand(case.rows, case.channels, case.size, case.size, generator=draw).contiguous(memory_format=layout)
    weight = torch.rand(case.outputs, case.channels, case.kernel, case.kernel, generator=draw) - 0.5
    weight = weight.contiguous(memory_format=layout)
    bias = torch.zeros(case.outputs)
    inputs = [tensor.requires_grad_() for tensor in (x, weight, bias)]

    def top() -> Tensor:
        if tiling is not None:
            return convolve_by_spectrum(x, weight, bias, tiling)
        return functional.conv2d(x, weight, bias, padding=case.pad)

    gradient = torch.ones_like(top())

    def work(steps: int) -> None:
        for _ in range(steps):
            torch.autograd.grad(top(), inputs, gradient)

    return work


def main() -> None:
    """Measure and print one line per case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| convolution | direct, ms | by spectra, ms | ratio | chosen |\n|---|---|---|---|---|")
    for case in CASES:
        tiling = case.tiling(worth=0)
        direct = {str(last): step(case, None, channels_last=last) for last in (False, True)}
        works = {**direct, "spectra": step(case, tiling, channels_last=True)}
        seconds = in_turns(works, arguments.rounds, 1, warm_up=2)
        best = fastest({name: seconds[name] for name in direct})
        result = ratio(seconds[best], seconds["spectra"])
        chosen = "yes" if case.tiling(worth=spectrum.WORTH[arguments.threads > 1]) else "no"
        print(f"| {case} | {milliseconds(seconds[best])} | {milliseconds(seconds['spectra'])} | {result} | {chosen} |")


if __name__ == "__main__":
    main()
