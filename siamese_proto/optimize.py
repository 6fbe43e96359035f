"""What a net runs: the graph as it was written, rewritten to compute the same in less time. Graph in, graph out."""

from __future__ import annotations

from dataclasses import replace

from siamese_proto.fuse import free_id, fuse_towers
from siamese_proto.graph.ir import Graph, Node
from siamese_proto.layers.convolution import Convolution
from siamese_proto.layers.spectrum import ConvolutionBySpectrum

_MANY_ROWS = 256


def optimize(graph: Graph) -> tuple[Graph, frozenset[str]]:
    """The graph with its towers fused and each layer computed in the shortest way, and the ids of the nodes that went.

    What these nodes of `graph` compute can be neither given nor left out by itself in what comes back.
    """
    fused, gone = fuse_towers(graph)
    taken = {node.id for node in fused.nodes}
    return replace(fused, nodes=tuple(by_spectrum(node, taken) for node in fused.nodes)), gone


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
