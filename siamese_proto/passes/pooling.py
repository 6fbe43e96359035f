"""MAX pooling in less time than torch takes, and without saving the bottom for backward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeGuard

from siamese_proto.graph.ir import Graph, Node
from siamese_proto.layers.activation import ReLU
from siamese_proto.layers.base import RunState
from siamese_proto.layers.element_wise import ElementWise
from siamese_proto.layers.inner_product import InnerProduct
from siamese_proto.layers.pooling import Pooling
from siamese_proto.passes.joined_layers import JoinedInnerProduct
from siamese_proto.passes.rewriting import Rewritten, free_id, is_ordinary, is_read_once, reader_counts

if TYPE_CHECKING:
    from torch import Tensor

Pair = tuple[int, int]

# Numbers of a bottom from which each way is faster, measured on one thread and on two.
_LEAN_FROM = 2**20  # 4 megabytes
_MAXIMA_FROM = {False: 2**15, True: 2**17}  # by whether channels are innermost, where torch is faster
_TURNED_FROM = 2**16  # where channels are outermost, in the bottom or in the gradient


def pool_before_relu(graph: Graph) -> Rewritten:
    """Move MAX pooling before the ReLU that it follows, which then has fewer elements.

    The maximum of rectified values is the rectified maximum. Where it is 0, no gradient passes in either order.
    """
    readers = reader_counts(graph)
    relus = {
        node.tops[0].id: node
        for node in graph.nodes
        if type(node.layer) is ReLU and not node.layer.negative_slope and is_read_once(node, readers)
    }
    rewritten: dict[str, Node] = {}  # by the id of the node that it replaces
    for pool in graph.nodes:
        if not is_maximum(pool.layer) or pool.bottoms[0].id not in relus:
            continue
        relu = relus[pool.bottoms[0].id]
        (bottom,) = relu.bottoms
        # No blob of a file has a version below 0, so this name cannot be one of the file's.
        name = f"{relu.tops[0].id} pooled"
        between = replace(pool.tops[0], name=name, version=-1)
        rewritten[relu.id] = replace(pool, bottoms=(bottom,), tops=(between,), loss_weights=(0.0,))
        rewritten[pool.id] = replace(relu, bottoms=(between,), tops=pool.tops, loss_weights=pool.loss_weights)
    nodes = tuple(rewritten.get(node.id, node) for node in graph.nodes)
    return Rewritten(replace(graph, nodes=nodes), frozenset(rewritten))


def lean_pooling(graph: Graph) -> Rewritten:
    """Compute MAX pooling as `LeanPooling` does."""
    ids = {node.id for node in graph.nodes}
    flattened = flattened_gradients(graph)
    nodes = []
    for node in graph.nodes:
        if is_maximum(node.layer):
            node = replace(node, id=free_id(f"{node.id}_lean", ids), layer=lean_layer(node, flattened))
        nodes.append(node)
    return Rewritten(replace(graph, nodes=tuple(nodes)))


def lean_layer(node: Node, flattened: set[str]) -> LeanPooling:
    """Return the layer of a MAX pooling node as a LeanPooling."""
    layer = LeanPooling(node.message, node.layer.context)  # type: ignore[union-attr]  # a Pooling
    layer.is_flattened = node.tops[0].id in flattened
    return layer


def is_maximum(layer: object) -> TypeGuard[Pooling]:
    """Return whether each element of the top is the maximum of a window that lies inside the padded bottom."""
    return type(layer) is Pooling and layer.method == "MAX" and layer.top_count == 1 and layer.is_gapless


def flattened_gradients(graph: Graph) -> set[str]:
    """Return ids of blobs whose gradients have channels outermost in memory, since a later layer flattens them."""
    ids: set[str] = set()
    for node in reversed(graph.nodes):
        takes_rows = isinstance(node.layer, InnerProduct | JoinedInnerProduct)
        if takes_rows or (isinstance(node.layer, ElementWise) and node.tops[0].id in ids):
            ids.add(node.bottoms[0].id)
    return ids


class LeanPooling(Pooling):
    """MAX pooling in less time, and without saving a large bottom for backward.

    `is_flattened` states that the gradient of the top has channels outermost in memory: torch then copies all but it.
    """

    is_flattened = False

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        return [self.pool(bottoms[0])]

    def pool(self, x: Tensor) -> Tensor:
        """Return the maxima of x (N, C, H, W), computed in the fastest way for its size and layout."""
        import torch

        kernel = self.kernel or (x.shape[2], x.shape[3])
        if not torch.compiler.is_compiling() and x.numel() >= _MAXIMA_FROM[False] and x.is_cpu:
            from siamese_proto.passes.pooling_kernel import maxima

            is_last, size = x.stride(1) == 1, x.numel()
            trains = torch.is_grad_enabled() and x.requires_grad
            by_maxima = self.pad == (0, 0) and min(kernel) > 1 and (not is_last or max(kernel) == 2)
            if not trains and size >= _MAXIMA_FROM[is_last] and by_maxima:
                if is_ordinary():
                    return maxima(x, kernel, self.stride, ceil_mode=self.ceil)
            elif size >= self._lean_from(trains=trains, is_last=is_last) and is_ordinary():
                return self.pool_lean(x)
        return torch.max_pool2d(x, kernel, self.stride, self.pad, ceil_mode=self.ceil)

    def pool_lean(self, x: Tensor) -> Tensor:
        """Return the maxima of x (N, C, H, W), of any size, without saving x for backward."""
        from siamese_proto.passes.pooling_kernel import max_pool

        settings = (self.kernel or (x.shape[2], x.shape[3]), self.stride, self.pad)
        return max_pool(x, *settings, ceil_mode=self.ceil, is_flattened=self.is_flattened)

    def _lean_from(self, *, trains: bool, is_last: bool) -> float:
        if not is_last or (trains and self.is_flattened):
            return _TURNED_FROM
        return _LEAN_FROM if trains else math.inf
