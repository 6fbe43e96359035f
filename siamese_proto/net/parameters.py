"""The tensors of a net, each once, by the id of its parameter; filled with the first values of its layer."""

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
    """The tensors of a net, each once, by the id of the parameter. Statistics are buffers, the others Parameters."""

    def hold(self, param: Param, tensor: Tensor) -> None:
        """Register a tensor; a Parameter (of the training net, for example) is registered unchanged."""
        if param.statistic:
            self.register_buffer(param.id, tensor)
        elif isinstance(tensor, nn.Parameter):
            self.register_parameter(param.id, tensor)
        else:
            self.register_parameter(param.id, nn.Parameter(tensor))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Weights:
        """Convert or move the tensors; buffers stay the same objects, as Parameters do, for nets that share them."""
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it without types
        for name, buffer in before.items():
            converted = self._buffers[name]
            if buffer is not None and converted is not None:
                buffer.data = converted.data
                self._buffers[name] = buffer
        return self

    def __getitem__(self, param_id: str) -> Tensor:
        # Not by getattr: torch searches three places, and a pass reads every tensor.
        tensor = self._parameters.get(param_id, self._buffers.get(param_id))
        assert tensor is not None  # only tensors are registered
        return tensor


def make_weights(graph: Graph, shared: Mapping[tuple[str, int], Tensor], run: RunState) -> Weights:
    """Return every tensor of a graph: from `shared`, by layer name and blob index, or new. Raises GraphError."""
    weights = Weights()
    nodes = {node.id: node for node in graph.nodes}
    # A tensor that some layer uses in another shape keeps its numbers in their written order.
    is_reshaped = {use.param.id for node in graph.nodes for use in node.params if use.shape != use.param.shape}
    for param in graph.params:
        owner = nodes[param.owner]
        if param.shape is None:
            raise graph.unknown_shapes(owner)
        tensor = shared.get((param.owner_name, param.index))
        if tensor is not None and tuple(tensor.shape) != param.shape:
            raise GraphError(
                f"its {param.role} has shape {param.shape} here, but {tuple(tensor.shape)} in the training net",
                location=owner.location,
                layer=owner.name,
            )
        assert isinstance(owner.layer, Layer)  # a net with unknown layers is not built
        if tensor is None:
            tensor = owner.layer.first_values(param.index)
        if tensor is None:
            tensor = _filled(param, owner, run)
            if param.id not in is_reshaped:
                tensor = owner.layer.laid_out(param.index, tensor)
        weights.hold(param, tensor)
    return weights


def _filled(param: Param, owner: Node, run: RunState) -> Tensor:
    shape = param.shape or ()
    try:
        tensor = torch.empty(shape)
        fill(tensor, param.filler, run.generator(f"{owner.id}/{param.index}", tensor.device))
    except NetError as problem:
        raise problem.at(location=owner.location, layer=owner.name) from None
    except RuntimeError:  # torch's, if memory is short
        size = f"{4 * math.prod(shape) / 2**30:.1f} GiB"
        fault = f"not enough memory for its {param.role} of shape {shape}, {size}"
        raise GraphError(fault, location=owner.location, layer=owner.name) from None
    return tensor
