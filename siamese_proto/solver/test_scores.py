"""The outputs of a test net, averaged over batches."""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from siamese_proto.errors import quoted
from siamese_proto.layers.normalization import BatchNorm
from siamese_proto.net.net import Net
from siamese_proto.solver.debug import DebugPass
from siamese_proto.solver.log import Event, log


class Scores:
    """The mean of every output of a net, and of its loss, over the batches so far; `debug` logs each pass in full."""

    def __init__(self, net: Net, debug: DebugPass | None = None) -> None:
        self.net = net
        self.debug = debug
        self.batches = 0
        self._totals: dict[str, Tensor] = {}
        self._loss = torch.zeros((), device=net.device)

    @torch.no_grad()
    def run_batch(self) -> Mapping[str, Tensor]:
        """Run the net over its next batch; returns the outputs for this batch alone."""
        if not self.batches:
            _warn_about_new_statistics(self.net)
        self.net.run_state.draw = self.batches
        self.net.train_as_built()
        outputs: dict[str, Tensor] = self.net() if self.debug is None else self.debug.forward(self.net.pull())
        self._loss += self.net.loss(outputs)
        self._totals = {name: self._totals.get(name, 0) + value for name, value in outputs.items()}
        self.batches += 1
        return outputs

    def means(self) -> dict[str, Tensor]:
        """Return every output blob, divided by the number of batches."""
        return {name: total / self.batches for name, total in self._totals.items()}

    def loss(self) -> float:
        """Return the weighted loss, divided by the number of batches."""
        return (self._loss / self.batches).item()


def _warn_about_new_statistics(net: Net) -> None:
    """Log which BatchNorm layers have no statistics yet: as in Caffe, their outputs are then huge."""
    nodes = [
        node
        for node in net.graph.nodes
        if isinstance(node.layer, BatchNorm)
        and node.layer.uses_stored
        and not net.weights[node.params[2].param.id].any()  # the scale factor, which counts batches
    ]
    if nodes:
        more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
        text = (
            f"layer {quoted(nodes[0].name)}{more}: BatchNorm has no statistics yet and divides by sqrt(eps), so the "
            "losses of this test are huge and mean nothing; test after some training (test_initialization: false), or "
            "give weights"
        )
        log(Event.NO_STATISTICS, text, level=logging.WARNING)
