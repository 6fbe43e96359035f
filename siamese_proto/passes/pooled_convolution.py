"""Convolution and the MAX pooling after it, computed for a few rows at a time to save memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from siamese_proto.graph.ir import Graph, LayerContext, Node, Shape
from siamese_proto.layers.convolution import Convolution
from siamese_proto.passes.pooling import LeanPooling, flattened_gradients, is_maximum, lean_layer
from siamese_proto.passes.rewriting import Rewritten, free_id, is_ordinary, is_read_once, reader_counts
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor

    from siamese_proto.layers.convolution import Operation

_SPLIT_FROM = 1_000_000  # elements between the two layers; smaller blobs are not worth the additional calls
# Elements between the two layers in one part, by whether there are several threads, as measured: as many as fit into
# the cache of a core, or enough to divide among threads, which wait for one another at the end of each call.
_PART_SIZE = {False: 400_000, True: 2_000_000}
_MOST_WEIGHTS = 50_000  # the gradients of more weights would take too long to sum over the parts


def pool_in_parts(graph: Graph) -> Rewritten:
    """Merge every Convolution with the MAX pooling after it, so that the blob between them never exists as a whole.

    A training step of the LeNet twin needs 44.9 instead of 56.1 MiB, see docs/decisions/0010.
    """
    readers = reader_counts(graph)
    ids = {node.id for node in graph.nodes}
    convolutions = {
        node.tops[0].id: node for node in graph.nodes if _can_be_split(node) and is_read_once(node, readers)
    }
    flattened = flattened_gradients(graph)
    merged: dict[str, Node] = {}  # by the id of the pooling node
    replaced: set[str] = set()
    for pool in graph.nodes:
        first = convolutions.get(pool.bottoms[0].id) if is_maximum(pool.layer) and not pool.cut[0] else None
        if first is None:
            continue
        layer = PooledConvolution(first.message, first.layer.context, lean_layer(pool, flattened))  # type: ignore[union-attr]  # a Convolution
        merged[pool.id] = replace(
            first,
            id=free_id(f"{first.id}_pooled", ids),
            name=f"{first.name}+{pool.name}",
            layer=layer,
            tops=pool.tops,
            loss_weights=pool.loss_weights,
        )
        replaced |= {first.id, pool.id}
    nodes = tuple(merged.get(node.id, node) for node in graph.nodes if node.id not in replaced or node.id in merged)
    return Rewritten(replace(graph, nodes=nodes), frozenset(replaced))


def _can_be_split(node: Node) -> bool:
    return type(node.layer) is Convolution and node.layer.axis == 1 and len(node.bottoms) == 1


class PooledConvolution(Convolution):
    """A Convolution and the MAX pooling after it as one layer.

    (N, C, H, W) -> (N, num_output, OH, OW)
    """

    def __init__(self, message: schema.LayerParameter, context: LayerContext, pooling: LeanPooling) -> None:
        super().__init__(message, context)
        self.pooling = pooling

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return self.pooling.top_shapes(super().top_shapes(bottoms))

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        return super().multiply_adds(bottoms, super().top_shapes(bottoms))

    def build_operation(self, bottom: Shape) -> Operation:
        import torch

        convolve, pooling = super().build_operation(bottom), self.pooling
        if torch.compiler.is_compiling():  # sizes may be symbolic, so no decision may depend on them
            return lambda x, weight, bias: pooling.pool(convolve(x, weight, bias))
        between = math.prod(super().top_shapes([bottom])[0])
        is_small = between < _SPLIT_FROM or math.prod(self.param_shapes([bottom])[0]) > _MOST_WEIGHTS

        def convolve_and_pool(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            size = between if is_small else _PART_SIZE[torch.get_num_threads() > 1]
            # If nothing is saved for backward, the blob between the two layers is freed immediately anyway.
            if between <= size or not (torch.is_grad_enabled() and x.is_cpu and is_ordinary()):
                return pooling.pool(convolve(x, weight, bias))
            parts = torch.split(x, max(1, len(x) * size // between))
            return torch.cat([pooling.pool_lean(convolve(part, weight, bias)) for part in parts])

        return convolve_and_pool
