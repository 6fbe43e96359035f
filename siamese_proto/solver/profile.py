"""How long a net takes, layer by layer and as a whole (caffe time)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import Graph, Node
from siamese_proto.layers.base import Layer
from siamese_proto.layers.element_wise import ElementWise
from siamese_proto.net.net import Net
from siamese_proto.net.program import is_source


@dataclass(frozen=True)
class LayerTime:
    """One layer's mean times, in milliseconds; of towers that run as one, the towers' together."""

    name: str
    type: str
    forward: float
    backward: float


@dataclass(frozen=True)
class NetTime:
    """The mean times of a net, in milliseconds: of each layer run by itself, and of the passes as they are run."""

    layers: tuple[LayerTime, ...]
    forward: float
    backward: float
    iterations: int

    @property
    def step(self) -> float:
        """Forward and backward together."""
        return self.forward + self.backward


def made_up_batch(graph: Graph) -> dict[str, Tensor]:
    """Random numbers for every blob that comes from outside, zeros where they are labels. Raises GraphError."""
    labels = {
        node.bottoms[index].id
        for node in graph.nodes
        if node.layer is not None
        for index in node.layer.labels
        if index < len(node.bottoms)
    }
    batch = {}
    for node in graph.nodes:
        for top in node.tops if is_source(node) else ():
            if top.shape is None:
                note = graph.notes[0] if graph.notes else "its shape is not known"
                raise GraphError(f"{note}; give its shape with --shape {top.name}=N,C,H,W")
            is_label = top.id in labels or len(top.shape) < 2
            batch[top.name] = (torch.zeros if is_label else torch.rand)(top.shape)
    return batch


def time_net(net: Net, batch: Mapping[str, Tensor], iterations: int, *, fuse: bool = True) -> NetTime:
    """Run a net `iterations` times, after a few that do not count; a backward pass only where something has a loss.

    Layers that write files write nothing.
    """
    graph = net.fused_graph if fuse else net.graph
    spent = _Spent(net.device)
    layers = {node.id: [0.0, 0.0] for node in graph.nodes if not is_source(node)}
    whole = [0.0, 0.0]
    for turn in range(iterations + 2):
        if turn == 2:  # the first passes take memory and choose kernels
            layers = {name: [0.0, 0.0] for name in layers}
            whole = [0.0, 0.0]
        with net.run.writing_nothing():
            _layer_by_layer(net, graph, batch, layers, spent)
            outputs = spent.on(whole, 0, lambda: net(**batch))
        loss = net.loss(outputs)
        if loss.requires_grad:
            spent.on(whole, 1, loss.backward)
        net.zero_grad()
    mean = 1e3 / iterations
    times = tuple(
        LayerTime(node.name, node.type, *(mean * seconds for seconds in layers[node.id]))
        for node in graph.nodes
        if node.id in layers
    )
    return NetTime(times, whole[0] * mean, whole[1] * mean, iterations)


class _Spent:
    """Adds up the seconds of calls; a GPU is waited for."""

    def __init__(self, device: torch.device) -> None:
        self._wait: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def on(self, seconds: list[float], index: int, work: Callable[[], object]) -> dict[str, Tensor]:
        """Call, and add the time to `seconds[index]`."""
        self._wait()
        begin = time.perf_counter()
        result = work()
        self._wait()
        seconds[index] += time.perf_counter() - begin
        return result  # type: ignore[return-value]  # the caller knows what it asked for


def _layer_by_layer(
    net: Net, graph: Graph, batch: Mapping[str, Tensor], times: dict[str, list[float]], spent: _Spent
) -> None:
    """One pass forward, and one back, each layer with tensors of its own."""
    values = dict(batch)
    passed: list[tuple[Node, list[Tensor], Sequence[Tensor]]] = []
    for node in graph.nodes:
        layer = node.layer
        if is_source(node) or not isinstance(layer, Layer):
            continue
        bottoms = [
            values[blob.id].detach().requires_grad_(blob.needs_gradient and not cut)
            for blob, cut in zip(node.bottoms, node.cut, strict=True)
        ]
        params = [net.weights[use.param.id] for use in node.params]
        params = [p.view(use.shape or p.shape) for p, use in zip(params, node.params, strict=True)]
        tops: list[Tensor] = []
        is_changed = isinstance(layer, ElementWise) and layer.overwrites
        work = _forward(layer, [x.clone() for x in bottoms] if is_changed else bottoms, params, net, tops)
        spent.on(times[node.id], 0, work)
        values.update(zip((top.id for top in node.tops), tops, strict=True))
        passed.append((node, [*bottoms, *params], tops))
    for node, leaves, made_tops in reversed(passed):
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        made = [top for top in made_tops if top.requires_grad]
        if wanted and made:
            spent.on(times[node.id], 1, _backward(made, wanted))


def _forward(
    layer: Layer, bottoms: Sequence[Tensor], params: Sequence[Tensor], net: Net, tops: list[Tensor]
) -> Callable[[], None]:
    return lambda: tops.extend(layer.forward(bottoms, params, net.run))


def _backward(tops: Sequence[Tensor], leaves: Sequence[Tensor]) -> Callable[[], object]:
    gradients = [torch.ones_like(top) for top in tops]
    return lambda: torch.autograd.grad(tops, leaves, gradients, allow_unused=True)
