"""A part of a net, run by itself: from some of its blobs to others, with nothing else computed."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from siamese_proto.errors import GraphError, quoted
from siamese_proto.graph.ir import Blob, Node
from siamese_proto.graph.traversal import nodes_before
from siamese_proto.layers.base import DataLayer, Layer
from siamese_proto.net.net import Net
from siamese_proto.net.program import Plan, build_program, in_phase, layer_modules

_CONSTANT = "DummyData"  # the only source that can run without input
_VALUES_PER_BATCH = 2**24  # of the largest blob, 64 MiB
_ROWS_PER_BATCH = 256


class Part:
    """The layers between some blobs, `inputs`, and others, `outputs`, in evaluation mode.

    Attributes:
        batch: The largest number of rows of one call.

    Raises:
        GraphError: the outputs depend on more than the inputs.
    """

    def __init__(self, net: Net, inputs: Sequence[Blob], outputs: Sequence[Blob]) -> None:
        self._net = net
        graph = in_phase(net.graph, "TEST")
        nodes = nodes_before(graph, outputs, inputs)
        _check_sources(nodes, inputs, outputs)
        constants = [node for node in nodes if node.is_source]
        layers = tuple(node for node in nodes if not node.is_source)
        modules = layer_modules(layers, net.run_state)
        self._constants = [tensor for node in constants for tensor in _values(net, node)]
        plan = Plan((*inputs, *(top for node in constants for top in node.tops)), layers)
        self._program = build_program(graph, plan, outputs, modules)
        by_row = all(isinstance(node.layer, Layer) and node.layer.rows_independent() for node in layers)
        shape = inputs[0].shape
        self._is_padded = bool(shape and shape[0]) and not (by_row and not constants)
        if self._is_padded and shape:
            self.batch = shape[0]
        else:
            sizes = [math.prod(top.shape[1:]) for node in layers for top in node.tops if top.shape]
            self.batch = max(1, min(_ROWS_PER_BATCH, _VALUES_PER_BATCH // max(sizes, default=1)))

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs of at most `batch` rows, without gradients."""
        rows = len(inputs[0])
        if self._is_padded:  # with copies of the first row
            inputs = tuple(torch.cat([x, x[:1].expand(self.batch - rows, *x.shape[1:])]) for x in inputs)
        tensors = [self._net.weights[param.id] for param in self._net.graph.params]
        with torch.no_grad():
            outputs = self._program(*(x.to(self._net.device) for x in inputs), *self._constants, *tensors)
        return tuple(tensor[:rows] if self._is_padded and tensor.dim() else tensor for tensor in outputs)


def _check_sources(nodes: Sequence[Node], inputs: Sequence[Blob], outputs: Sequence[Blob]) -> None:
    read = {blob.id for blob in (*outputs, *(bottom for node in nodes for bottom in node.bottoms))}
    read -= {blob.id for blob in inputs}
    for node in reversed(nodes):
        if node.is_source and node.type != _CONSTANT:
            names = ", ".join(quoted(top.name) for top in node.tops if top.id in read)
            raise GraphError(
                f"{', '.join(quoted(blob.name) for blob in outputs)} cannot be computed from "
                f"{', '.join(quoted(blob.name) for blob in inputs)} alone: it takes {names} too",
                location=node.location,
                layer=node.name,
            )


def _values(net: Net, node: Node) -> Sequence[Tensor]:
    assert isinstance(node.layer, DataLayer)  # of type DummyData
    feeder = node.layer.open(net.run_state)
    try:
        return [tensor.to(net.device) for tensor in feeder.next_batch()]
    finally:
        feeder.close()
