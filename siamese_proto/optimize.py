"""What a net runs: the graph as it was written, rewritten to compute the same in less time. Graph in, graph out."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

from siamese_proto.fuse import free_id, fuse_towers
from siamese_proto.graph.ir import Graph, Node
from siamese_proto.layers.base import canonical_axis
from siamese_proto.layers.convolution import Convolution
from siamese_proto.layers.normalization import BatchNorm
from siamese_proto.layers.scale import Scale
from siamese_proto.layers.spectrum import ConvolutionBySpectrum

_MANY_ROWS = 256


def optimize(graph: Graph) -> tuple[Graph, frozenset[str]]:
    """The graph with its towers fused and each layer computed in the shortest way, and the ids of the nodes that went.

    What these nodes of `graph` compute can be neither given nor left out by itself in what comes back.
    """
    scaled, pairs = take_in_scales(graph)
    fused, joined = fuse_towers(scaled)
    gone = [*itertools.chain(*pairs.values()), *(name for name in joined if name not in pairs)]
    taken = {node.id for node in fused.nodes}
    return replace(fused, nodes=tuple(by_spectrum(node, taken) for node in fused.nodes)), frozenset(gone)


def take_in_scales(graph: Graph) -> tuple[Graph, dict[str, tuple[str, str]]]:
    """Every BatchNorm with the Scale layer behind it as one BatchNorm with five parameters; its id, and those of both.

    Caffe writes learned factors and terms as a layer of their own; torch's kernel takes them along.
    """
    scales = {
        node.bottoms[0].id: node
        for node in graph.nodes
        if _takes_one_bottom(node.layer) and not any(node.cut) and not any(use.param.statistic for use in node.params)
    }
    readers = Counter(blob.id for node in graph.nodes for blob in node.bottoms)
    readers.update(blob.id for blob in graph.outputs)
    nodes: list[Node] = []
    pairs: dict[str, tuple[str, str]] = {}
    behind: set[str] = set()  # ids of the Scale layers taken in
    for node in graph.nodes:
        if node.id in behind:
            continue
        scale = scales.get(node.tops[0].id) if type(node.layer) is BatchNorm else None
        if scale is None or readers[node.tops[0].id] > 1 or any(node.loss_weights) or not _is_by_channel(scale):
            nodes.append(node)
            continue
        behind.add(scale.id)
        name = free_id(f"{node.id}_scaled", {other.id for other in graph.nodes})
        pairs[name] = (node.id, scale.id)
        nodes.append(
            replace(
                node,
                id=name,
                tops=scale.tops,
                params=(*node.params, *scale.params),
                loss_weights=scale.loss_weights,
                needs_backward=scale.needs_backward,
            )
        )
    return replace(graph, nodes=tuple(nodes)), pairs


def _takes_one_bottom(layer: object) -> bool:
    """Whether it is a Scale layer itself, not a class of somebody's own, with learned factors."""
    return isinstance(layer, Scale) and type(layer) is Scale and layer.is_learned


def _is_by_channel(scale: Node) -> bool:
    """Whether there is a factor for each channel."""
    shape = scale.bottoms[0].shape
    if shape is None or not isinstance(scale.layer, Scale) or canonical_axis(scale.layer.axis, shape) != 1:
        return False
    return scale.layer.spread_shape([shape]) == shape[1:2]


def by_spectrum(node: Node, taken: set[str]) -> Node:
    """A Convolution that can gain by spectra, with a large batch at least, as one that looks which way is shorter."""
    written, shape = node.layer, node.bottoms[0].shape if node.bottoms else None
    if not isinstance(written, Convolution) or type(written) is not Convolution or len(shape or ()) != 4:
        return node  # the type itself: a class of somebody's own may compute something else
    layer = ConvolutionBySpectrum(node.message, written.context)
    _, *picture = shape or ()
    if layer.axis != 1 or layer.tiling((_MANY_ROWS, *picture), layer.num_output) is None:
        return node
    return replace(node, id=free_id(f"{node.id}_by_spectrum", taken), layer=layer)
