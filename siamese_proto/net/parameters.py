"""The tensors of a net: each once, under the id of its parameter, filled as its layer says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from siamese_proto.errors import GraphError, NetError
from siamese_proto.graph.ir import Graph, Node, Param
from siamese_proto.layers.base import Layer, RunState
from siamese_proto.net.fillers import fill


class Weights(nn.Module):
    """The tensors of a net, each once, under the id of the parameter: what is learned, and statistics as buffers."""

    def hold(self, param: Param, tensor: Tensor) -> None:
        """Register a tensor; one that is a Parameter already (of the training net, say) is taken as it is."""
        if param.statistic:
            self.register_buffer(param.id, tensor)
        elif isinstance(tensor, nn.Parameter):
            self.register_parameter(param.id, tensor)
        else:
            self.register_parameter(param.id, nn.Parameter(tensor))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Weights:
        """Convert or move the tensors; a buffer stays the tensor it is, as a Parameter does, for who shares it."""
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it without types
        for name, buffer in before.items():
            converted = self._buffers[name]
            if buffer is not None and converted is not None:
                buffer.data = converted.data
                self._buffers[name] = buffer
        return self

    def __getitem__(self, param_id: str) -> Tensor:
        # Not by getattr: torch looks it up in three places, and a pass asks for every tensor.
        tensor = self._parameters.get(param_id, self._buffers.get(param_id))
        assert tensor is not None  # only tensors are registered
        return tensor


def make_weights(graph: Graph, taken: Mapping[tuple[str, int], Tensor], run: RunState) -> Weights:
    """Every tensor of a graph: from `taken`, by layer name and index, or filled. Raises GraphError."""
    weights = Weights()
    nodes = {node.id: node for node in graph.nodes}
    # A tensor that somebody sees in another shape keeps its numbers in their written order.
    seen_otherwise = {use.param.id for node in graph.nodes for use in node.params if use.shape != use.param.shape}
    for param in graph.params:
        owner = nodes[param.owner]
        found = taken.get((param.owner_name, param.index))
        if param.shape is None:
            raise _unknown_shape(graph, owner)
        if found is not None and tuple(found.shape) != param.shape:
            raise GraphError(
                f"its {param.role} has shape {param.shape} here, but {tuple(found.shape)} in the training net",
                location=owner.location,
                layer=owner.name,
            )
        assert isinstance(owner.layer, Layer)  # a net with unknown layers is not made
        if found is None:
            found = owner.layer.first_values(param.index)
        if found is None:
            found = _filled(param, owner, run)
            if param.id not in seen_otherwise:
                found = owner.layer.laid_out(param.index, found)
        weights.hold(param, found)
    return weights


def _filled(param: Param, owner: Node, run: RunState) -> Tensor:
    shape = param.shape or ()
    try:
        tensor = torch.empty(shape)
        fill(tensor, param.filler, run.generator(f"{owner.id}/{param.index}", tensor.device))
    except NetError as problem:
        raise problem.at(location=owner.location, layer=owner.name) from None
    except RuntimeError:  # torch's, when memory is short
        size = f"{4 * math.prod(shape) / 2**30:.1f} GiB"
        fault = f"there is no memory for its {param.role} of shape {shape}, {size}"
        raise GraphError(fault, location=owner.location, layer=owner.name) from None
    return tensor


def _unknown_shape(graph: Graph, owner: Node) -> NetError:
    if graph.notes:
        return GraphError(graph.notes[0])
    return GraphError("the shapes of its bottoms are not known", location=owner.location, layer=owner.name)
