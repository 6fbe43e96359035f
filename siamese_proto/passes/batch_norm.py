"""Compute a BatchNorm layer and the Scale layer after it in one kernel."""

from dataclasses import replace

from siamese_proto.graph.ir import Graph, Node
from siamese_proto.layers.base import canonical_axis
from siamese_proto.layers.normalization import BatchNorm
from siamese_proto.layers.scale import Scale
from siamese_proto.passes.rewriting import Rewritten, free_id, is_read_once, reader_counts


def merge_scales(graph: Graph) -> Rewritten:
    """Merge every BatchNorm with the Scale layer after it into one BatchNorm with five parameters.

    Caffe has a separate layer for the learned factors and biases; torch's kernel applies them too.
    """
    scales = {node.bottoms[0].id: node for node in graph.nodes if _is_scale_by_channel(node)}
    readers = reader_counts(graph)
    nodes: list[Node] = []
    replaced: set[str] = set()
    merged: set[str] = set()  # ids of Scale layers
    ids = {node.id for node in graph.nodes}
    for node in graph.nodes:
        if node.id in merged:
            continue
        scale = scales.get(node.tops[0].id) if type(node.layer) is BatchNorm else None
        if scale is not None and is_read_once(node, readers):
            merged.add(scale.id)
            replaced |= {node.id, scale.id}
            node = replace(
                node,
                id=free_id(f"{node.id}_scaled", ids),
                name=f"{node.name}+{scale.name}",
                tops=scale.tops,
                params=(*node.params, *scale.params),
                loss_weights=scale.loss_weights,
            )
        nodes.append(node)
    return Rewritten(replace(graph, nodes=tuple(nodes)), frozenset(replaced))


def _is_scale_by_channel(node: Node) -> bool:
    """Return whether a node is a Scale layer with a learned factor for each channel, and is not a custom subclass."""
    layer = node.layer
    if type(layer) is not Scale or not layer.is_learned or node.cut[0]:
        return False
    shape = node.bottoms[0].shape
    if shape is None or any(use.param.statistic for use in node.params) or canonical_axis(layer.axis, shape) != 1:
        return False
    return layer.spread_shape([shape]) == shape[1:2]
