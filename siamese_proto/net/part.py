"""A part of a net, run by itself: from some of its blobs to others, with nothing else computed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from siamese_proto.errors import GraphError, quoted
from siamese_proto.graph.ir import Blob, Graph, Node
from siamese_proto.layers.base import DataLayer, Layer
from siamese_proto.net.net import Net
from siamese_proto.net.program import LayerModule, Plan, build_program, in_phase, is_source, module_name

_MADE_UP = "DummyData"  # the one source that needs nobody to feed it
_VALUES_AT_ONCE = 2**24  # of the largest blob, 64 MiB
_ROWS_AT_ONCE = 256


class Part:
    """The layers between `given` and `wanted`. Raises GraphError where more than `given` would have to be known."""

    def __init__(self, net: Net, given: Sequence[Blob], wanted: Sequence[Blob]) -> None:
        self._net = net
        graph = in_phase(net.graph, "TEST")  # evaluation, whatever mode the net is in
        nodes, constants = _needed(graph, given, wanted)
        modules = {
            module_name(node): LayerModule(node.layer, net.run_state) for node in nodes if isinstance(node.layer, Layer)
        }
        self._constants = [tensor for node in constants for tensor in _made_up(net, node)]
        inputs = (*given, *(top for node in constants for top in node.tops))
        self._program = build_program(graph, Plan(inputs, tuple(nodes), ()), wanted, modules)
        self.batch = _fixed_batch(given, nodes, constants) or _rows(nodes)
        self._padded = bool(_fixed_batch(given, nodes, constants))

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        """The blobs wanted, of at most `batch` rows; without gradients."""
        rows = len(given[0])
        device = self._net.device
        inputs = [_filled_up(tensor, self.batch) if self._padded else tensor for tensor in given]
        tensors = [self._net.weights[param.id] for param in self._net.graph.params]
        with torch.no_grad():
            found = self._program(*(tensor.to(device) for tensor in inputs), *self._constants, *tensors)
        return tuple(tensor[:rows] if self._padded and tensor.dim() else tensor for tensor in found)


def _needed(graph: Graph, given: Sequence[Blob], wanted: Sequence[Blob]) -> tuple[list[Node], list[Node]]:
    """The layers to run, and those that make values up."""
    there = {blob.id for blob in given}
    missing = {blob.id for blob in wanted} - there
    nodes: list[Node] = []
    constants: list[Node] = []
    for node in reversed(graph.nodes):
        if not any(top.id in missing for top in node.tops):
            continue
        if node.type == _MADE_UP:
            constants.append(node)
        elif is_source(node):
            names = ", ".join(quoted(top.name) for top in node.tops if top.id in missing)
            raise GraphError(
                f"{', '.join(quoted(blob.name) for blob in wanted)} cannot be computed from "
                f"{', '.join(quoted(blob.name) for blob in given)} alone: it takes {names} too",
                location=node.location,
                layer=node.name,
            )
        else:
            nodes.append(node)
            missing.update(bottom.id for bottom in node.bottoms if bottom.id not in there)
    return nodes[::-1], constants[::-1]


def _made_up(net: Net, node: Node) -> Sequence[Tensor]:
    assert isinstance(node.layer, DataLayer)  # of type DummyData
    feeder = node.layer.open(net.run_state)
    try:
        return [tensor.to(net.device) for tensor in feeder.next_batch()]
    finally:
        feeder.close()


def _fixed_batch(given: Sequence[Blob], nodes: Sequence[Node], constants: Sequence[Node]) -> int:
    """How many rows must come at once; 0 where any number may."""
    free = not constants and all(isinstance(node.layer, Layer) and node.layer.rows_independent() for node in nodes)
    shape = given[0].shape
    return 0 if free or not shape else shape[0]


def _rows(nodes: Sequence[Node]) -> int:
    sizes = [math.prod(top.shape[1:]) for node in nodes for top in node.tops if top.shape]
    return max(1, min(_ROWS_AT_ONCE, _VALUES_AT_ONCE // max(sizes, default=1)))


def _filled_up(tensor: Tensor, rows: int) -> Tensor:
    """With copies of the first row behind it, up to so many."""
    return torch.cat([tensor, tensor[:1].expand(rows - len(tensor), *tensor.shape[1:])])
