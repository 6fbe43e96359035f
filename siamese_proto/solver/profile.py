"""The time that a net takes, layer by layer and in total (caffe time)."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from siamese_proto.errors import GraphError
from siamese_proto.graph.gradient_flow import gradient_flow
from siamese_proto.graph.ir import Graph, Node
from siamese_proto.layers.base import Layer
from siamese_proto.layers.element_wise import ElementWise
from siamese_proto.net.net import Net

_WARM_UP = 2  # passes that allocate memory and choose kernels, and are not counted
_TOTAL = ""  # the layer of times of whole passes


@dataclass(frozen=True)
class LayerTime:
    """The mean times of one layer in milliseconds; of towers that run as one, of all together."""

    name: str
    type: str
    forward: float
    backward: float


@dataclass(frozen=True)
class NetTime:
    """The mean times of a net in milliseconds: of each layer run by itself, and of whole passes."""

    layers: tuple[LayerTime, ...]
    forward: float
    backward: float
    iterations: int

    @property
    def step(self) -> float:
        """Forward and backward together."""
        return self.forward + self.backward


def random_batch(graph: Graph) -> dict[str, Tensor]:
    """Return random numbers for every input blob, and zeros for labels. Raises GraphError if a shape is unknown."""
    labels = {node.bottoms[index].id for node in graph.nodes for index in node.labels if index < len(node.bottoms)}
    batch = {}
    for node in graph.nodes:
        for top in node.tops if node.is_source else ():
            if top.shape is None:
                note = graph.notes[0] if graph.notes else "its shape is unknown"
                raise GraphError(f"{note}; give its shape with --shape {top.name}=N,C,H,W")
            is_label = top.id in labels or len(top.shape) < 2
            batch[top.name] = (torch.zeros if is_label else torch.rand)(top.shape)
    return batch


def time_net(net: Net, batch: Mapping[str, Tensor], iterations: int, *, fuse: bool = True) -> NetTime:
    """Run a net `iterations` times, after some passes that are not counted.

    The backward pass runs only if something has a loss. Layers write no files.
    """
    graph = net.fused_graph if fuse else net.graph
    timer = _Timer(net.device)
    for turn in range(iterations + _WARM_UP):
        if turn == _WARM_UP:
            timer.seconds.clear()
        with net.run_state.writing_nothing():
            _time_layers(net, graph, batch, timer)
            with timer.measure(_TOTAL, "forward"):
                outputs = net(**batch)
        loss = net.loss(outputs)
        if loss.requires_grad:
            with timer.measure(_TOTAL, "backward"):
                loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        net.zero_grad()

    def mean(layer: str) -> tuple[float, float]:
        forward, backward = (
            1e3 * timer.seconds[layer, direction] / iterations for direction in ("forward", "backward")
        )
        return forward, backward

    layers = tuple(LayerTime(node.name, node.type, *mean(node.id)) for node in graph.nodes if not node.is_source)
    return NetTime(layers, *mean(_TOTAL), iterations)


class _Timer:
    """Adds up seconds by layer and direction; waits for the GPU."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        self._is_gpu = device.type == "cuda"

    @contextmanager
    def measure(self, layer: str, direction: str) -> Iterator[None]:
        if self._is_gpu:
            torch.cuda.synchronize()
        begin = time.perf_counter()
        yield
        if self._is_gpu:
            torch.cuda.synchronize()
        self.seconds[layer, direction] += time.perf_counter() - begin


def _time_layers(net: Net, graph: Graph, batch: Mapping[str, Tensor], timer: _Timer) -> None:
    """One forward and one backward pass, in which each layer has its own tensors."""
    has_gradient = gradient_flow(graph).blobs
    values = dict(batch)
    passed: list[tuple[Node, list[Tensor], list[Tensor]]] = []
    for node in graph.nodes:
        layer = node.layer
        if node.is_source or not isinstance(layer, Layer):
            continue
        bottoms = [
            values[blob.id].detach().requires_grad_(blob.id in has_gradient and not cut)
            for blob, cut in zip(node.bottoms, node.cut, strict=True)
        ]
        weights = [net.weights[use.param.id] for use in node.params]
        params = [p.view(use.shape or p.shape) for p, use in zip(weights, node.params, strict=True)]
        is_in_place = isinstance(layer, ElementWise) and layer.overwrites
        inputs = [x.clone() for x in bottoms] if is_in_place else bottoms
        with timer.measure(node.id, "forward"):
            tops = list(layer.forward(inputs, params, net.run_state))
        values.update(zip((top.id for top in node.tops), tops, strict=True))
        passed.append((node, [*bottoms, *params], tops))
    for node, leaves, tops in reversed(passed):
        leaves = [leaf for leaf in leaves if leaf.requires_grad]
        tops = [top for top in tops if top.requires_grad]
        if leaves and tops:
            gradients = [torch.ones_like(top) for top in tops]
            with timer.measure(node.id, "backward"):
                torch.autograd.grad(tops, leaves, gradients, allow_unused=True)
