"""Let element-wise layers write over their bottom."""

import copy
from dataclasses import replace

from siamese_proto.graph.ir import Graph
from siamese_proto.layers.activation import Dropout, ReLU, Sigmoid, TanH
from siamese_proto.layers.convolution import Convolution
from siamese_proto.layers.deconvolution import Deconvolution
from siamese_proto.layers.element_wise import ElementWise
from siamese_proto.layers.eltwise import Eltwise
from siamese_proto.layers.inner_product import InnerProduct
from siamese_proto.layers.normalization import BatchNorm
from siamese_proto.layers.pooling import Pooling
from siamese_proto.passes.pooled_convolution import PooledConvolution
from siamese_proto.passes.pooling import LeanPooling
from siamese_proto.passes.rewriting import Rewritten, is_read_once, reader_counts
from siamese_proto.passes.spectral_convolution import ConvolutionBySpectrum

# Layers whose top is a new tensor that their backward pass does not read. torch saves the tops of some other layers
# for backward, and others return a view of their bottom.
_NEW_TOPS: set[type] = {BatchNorm, Convolution, Deconvolution, InnerProduct, Pooling}
_NEW_TOPS |= {ConvolutionBySpectrum, LeanPooling, PooledConvolution}
_CAN_OVERWRITE = {ReLU, Sigmoid, TanH, Dropout}  # their backward passes do not read the bottom


def overwrite_bottoms(graph: Graph) -> Rewritten:
    """Let element-wise layers write over their bottom if no other layer reads it and its producer does not need it."""
    readers = reader_counts(graph)
    free = {node.tops[0].id for node in graph.nodes if _makes_new_top(node.layer) and is_read_once(node, readers)}
    nodes = []
    for node in graph.nodes:
        layer = node.layer
        if isinstance(layer, ElementWise) and type(layer) in _CAN_OVERWRITE and node.bottoms[0].id in free:
            layer = copy.copy(layer)
            layer.overwrites = not node.cut[0]
            node = replace(node, layer=layer)
        nodes.append(node)
    return Rewritten(replace(graph, nodes=tuple(nodes)))


def _makes_new_top(layer: object) -> bool:
    return type(layer) in _NEW_TOPS or (type(layer) is Eltwise and layer.operation == "SUM")
