"""What a net runs: the graph as it was written, rewritten to compute the same in less time. Graph in, graph out."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from dataclasses import replace
from typing import TypeGuard, TypeVar

from siamese_proto.graph.ir import Graph, Node
from siamese_proto.layers.activation import Dropout, ReLU, Sigmoid, TanH
from siamese_proto.layers.base import canonical_axis
from siamese_proto.layers.convolution import Convolution
from siamese_proto.layers.deconvolution import Deconvolution
from siamese_proto.layers.element_wise import ElementWise
from siamese_proto.layers.eltwise import Eltwise
from siamese_proto.layers.inner_product import InnerProduct
from siamese_proto.layers.joined import JoinedProduct
from siamese_proto.layers.normalization import BatchNorm
from siamese_proto.layers.pooling import LeanPooling, Pooling
from siamese_proto.layers.scale import Scale
from siamese_proto.optimize.fuse_towers import free_id, fuse_towers
from siamese_proto.optimize.pooled_convolution import PooledConvolution
from siamese_proto.optimize.spectral_convolution import WORTH, ConvolutionBySpectrum

_MANY_ROWS = 256  # of a batch, to ask of a layer whether it can gain at all
# Layers whose top is a tensor of its own, which their backward passes do not ask for.
_MAKERS: set[type] = {BatchNorm, Convolution, Deconvolution, InnerProduct, Pooling}
_MAKERS |= {ConvolutionBySpectrum, LeanPooling, PooledConvolution}
_CAN_OVERWRITE = {ReLU, Sigmoid, TanH, Dropout}  # their backward passes do not ask for the bottom
Kind = TypeVar("Kind")


def optimize(graph: Graph) -> tuple[Graph, frozenset[str]]:
    """The graph with its towers fused and each layer computed in the shortest way, and the ids of the nodes that went.

    What these nodes of `graph` compute can be neither given nor left out by itself in what comes back.
    """
    scaled, pairs = take_in_scales(graph)
    turned, moved = pool_first(scaled)
    fused, joined = fuse_towers(turned)
    pooled, taken_in = pool_in_parts(fused)
    gone = [*itertools.chain(*pairs.values()), *moved, *joined, *taken_in]
    taken = {node.id for node in pooled.nodes}
    flattened = _flattened(pooled)
    short = replace(pooled, nodes=tuple(shortest(node, taken, flattened) for node in pooled.nodes))
    return overwrite(short), frozenset(gone)


def take_in_scales(graph: Graph) -> tuple[Graph, dict[str, tuple[str, str]]]:
    """Every BatchNorm with the Scale layer behind it as one BatchNorm with five parameters; its id, and those of both.

    Caffe writes learned factors and terms as a layer of their own; torch's kernel takes them along.
    """
    scales = {
        node.bottoms[0].id: node
        for node in graph.nodes
        if _takes_one_bottom(node.layer) and not node.cut[0] and not any(use.param.statistic for use in node.params)
    }
    readers = _readers(graph)
    nodes: list[Node] = []
    pairs: dict[str, tuple[str, str]] = {}
    behind: set[str] = set()  # ids of the Scale layers taken in
    taken = {node.id for node in graph.nodes}
    for node in graph.nodes:
        if node.id in behind:
            continue
        scale = scales.get(node.tops[0].id) if type(node.layer) is BatchNorm else None
        if scale is None or readers[node.tops[0].id] > 1 or any(node.loss_weights) or not _is_by_channel(scale):
            nodes.append(node)
            continue
        behind.add(scale.id)
        name = free_id(f"{node.id}_scaled", taken)
        pairs[name] = (node.id, scale.id)
        nodes.append(
            replace(
                node,
                id=name,
                name=f"{node.name}+{scale.name}",
                tops=scale.tops,
                params=(*node.params, *scale.params),
                loss_weights=scale.loss_weights,
                needs_backward=scale.needs_backward,
            )
        )
    return replace(graph, nodes=tuple(nodes)), pairs


def _takes_one_bottom(layer: object) -> bool:
    """Whether it is a Scale layer itself, not a class of somebody's own, with learned factors."""
    return _is(layer, Scale) and layer.is_learned


def _is_by_channel(scale: Node) -> bool:
    """Whether there is a factor for each channel."""
    shape = scale.bottoms[0].shape
    if shape is None or not isinstance(scale.layer, Scale) or canonical_axis(scale.layer.axis, shape) != 1:
        return False
    return scale.layer.spread_shape([shape]) == shape[1:2]


def pool_first(graph: Graph) -> tuple[Graph, list[str]]:
    """MAX pooling in front of the ReLU that it follows, which then has less to do; and the ids of all these nodes.

    The greatest of rectified numbers is the rectified greatest; where it is 0 no gradient passes, wherever it stood.
    """
    readers = _readers(graph)
    relus = {
        node.tops[0].id: node
        for node in graph.nodes
        if _is(node.layer, ReLU) and not node.layer.negative_slope and _is_passed_on(node, readers)
    }
    pools = [node for node in graph.nodes if _picks(node.layer) and node.bottoms[0].id in relus]
    into: dict[str, Node] = {}  # by the id of the node whose place it takes
    for pool in pools:
        relu = relus[pool.bottoms[0].id]
        (bottom,) = relu.bottoms
        # No blob of a file has a version below 0: so the name cannot be one of the file's.
        name = f"{relu.tops[0].id} pooled"
        between = replace(pool.tops[0], name=name, version=-1, needs_gradient=bottom.needs_gradient)
        into[relu.id] = replace(
            pool, bottoms=(bottom,), tops=(between,), loss_weights=(0.0,), needs_backward=relu.needs_backward
        )
        into[pool.id] = replace(relu, bottoms=(between,), tops=pool.tops, loss_weights=pool.loss_weights)
    return replace(graph, nodes=tuple(into.get(node.id, node) for node in graph.nodes)), list(into)


def pool_in_parts(graph: Graph) -> tuple[Graph, list[str]]:
    """Every Convolution with the MAX pooling behind it as one layer, so that what lies between is never whole."""
    readers = _readers(graph)
    convolutions = {
        node.tops[0].id: node
        for node in graph.nodes
        if _is(node.layer, Convolution)
        and node.layer.axis == 1
        and len(node.bottoms) == 1
        and _is_passed_on(node, readers)
        and not _gains_by_spectrum(node)
    }
    flattened = _flattened(graph)
    into: dict[str, Node] = {}  # by the id of the pooling layer
    gone: dict[str, None] = {}  # ids of both, in order
    for pool in graph.nodes:
        first = convolutions.get(pool.bottoms[0].id) if pool.bottoms else None
        if first is None or not _is(first.layer, Convolution) or not _picks(pool.layer) or pool.cut[0]:
            continue
        layer = PooledConvolution(first.message, first.layer.context, _lean(pool, pool.layer, flattened))
        name = f"{first.name}+{pool.name}"
        into[pool.id] = replace(first, name=name, layer=layer, tops=pool.tops, loss_weights=pool.loss_weights)
        gone |= {first.id: None, pool.id: None}
    left = (node for node in graph.nodes if node.id not in gone or node.id in into)
    return replace(graph, nodes=tuple(into.get(node.id, node) for node in left)), list(gone)


def _readers(graph: Graph) -> Counter[str]:
    """How often each blob is read, by a layer or as an output of the net."""
    found = Counter(blob.id for node in graph.nodes for blob in node.bottoms)
    found.update(blob.id for blob in graph.outputs)
    return found


def _is_passed_on(node: Node, readers: Counter[str]) -> bool:
    """Whether its one top is read once, and counts for nothing else."""
    return readers[node.tops[0].id] == 1 and not any(node.loss_weights)


def overwrite(graph: Graph) -> Graph:
    """Element-wise layers that change their bottom where it lies, if nobody else reads it and its maker can do without.

    torch keeps the tops of some layers for their backward pass, and others give a view of their bottom.
    """
    readers = _readers(graph)
    made = {node.tops[0].id for node in graph.nodes if _makes_anew(node.layer) and _is_passed_on(node, readers)}
    nodes = []
    for node in graph.nodes:
        layer = node.layer
        if isinstance(layer, ElementWise) and type(layer) in _CAN_OVERWRITE and node.bottoms[0].id in made:
            layer = copy.copy(layer)
            layer.overwrites = not node.cut[0]
            node = replace(node, layer=layer)
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def _makes_anew(layer: object) -> bool:
    """Whether its top is a tensor of its own, which its backward pass does not ask for."""
    is_sum = _is(layer, Eltwise) and layer.operation == "SUM"
    return is_sum or type(layer) in _MAKERS


def _is(layer: object, kind: type[Kind]) -> TypeGuard[Kind]:
    """Whether it is of this type itself: a class of somebody's own may compute something else."""
    return type(layer) is kind


def _picks(layer: object) -> TypeGuard[Pooling]:
    return _is(layer, Pooling) and layer.picks()


def shortest(node: Node, taken: set[str], flattened: set[str]) -> Node:
    """The node with its layer computed in the way that takes the least time and memory."""
    layer = node.layer
    if _picks(layer):
        return replace(node, id=free_id(f"{node.id}_lean", taken), layer=_lean(node, layer, flattened))
    if _is(layer, Convolution) and _gains_by_spectrum(node):
        by_spectrum = ConvolutionBySpectrum(node.message, layer.context)
        return replace(node, id=free_id(f"{node.id}_by_spectrum", taken), layer=by_spectrum)
    return node


def _lean(node: Node, pooling: Pooling, flattened: set[str]) -> LeanPooling:
    layer = LeanPooling(node.message, pooling.context)
    layer.is_flattened = node.tops[0].id in flattened
    return layer


def _flattened(graph: Graph) -> set[str]:
    """Ids of blobs whose gradients come with channels outermost in memory, from layers that take rows as one."""
    found: set[str] = set()
    for node in reversed(graph.nodes):
        takes_rows = isinstance(node.layer, InnerProduct | JoinedProduct)
        if takes_rows or (isinstance(node.layer, ElementWise) and node.tops[0].id in found):
            found.add(node.bottoms[0].id)
    return found


def _gains_by_spectrum(node: Node) -> bool:
    """Whether a Convolution can gain, with a large batch at least."""
    written, shape = node.layer, node.bottoms[0].shape
    if not isinstance(written, Convolution) or written.axis != 1 or shape is None or len(shape) != 4:
        return False
    layer = ConvolutionBySpectrum(node.message, written.context)
    return layer.tiling((_MANY_ROWS, *shape[1:]), layer.num_output, worth=min(WORTH.values())) is not None
