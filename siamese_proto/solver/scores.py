"""What a net puts out, averaged over batches."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from siamese_proto.net import Net
from siamese_proto.solver.debug import DebugPass


class Scores:
    """The mean of every output of a net, and of its loss, over the batches run so far; `debug` logs each in full."""

    def __init__(self, net: Net, debug: DebugPass | None = None) -> None:
        self.net = net
        self.debug = debug
        self.batches = 0
        self._totals: dict[str, Tensor] = {}
        self._loss = torch.zeros((), device=net.device)

    @torch.no_grad()
    def run_batch(self) -> Mapping[str, Tensor]:
        """Run the net over its next batch; the outputs for this batch alone."""
        self.net.run.draw = self.batches
        self.net.train_as_built()
        outputs: dict[str, Tensor] = self.net() if self.debug is None else self.debug.forward(self.net.pull())
        self._loss += self.net.loss(outputs)
        self._totals = {name: self._totals.get(name, 0) + value for name, value in outputs.items()}
        self.batches += 1
        return outputs

    def means(self) -> dict[str, Tensor]:
        """Every output blob, divided by the number of batches."""
        return {name: total / self.batches for name, total in self._totals.items()}

    def loss(self) -> float:
        """The weighted loss, divided by the number of batches."""
        return (self._loss / self.batches).item()
