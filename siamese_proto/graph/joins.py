"""Layers at which towers meet to be compared."""

from __future__ import annotations

from siamese_proto.graph.ir import Blob, Node

# How many of their first bottoms are features.
_FEATURES = {"ContrastiveLoss": 2, "TripletLoss": 3, "Distance": 2}


def compared_features(node: Node) -> tuple[Blob, ...]:
    """The features that a pair or triplet loss, a distance or a difference compares; empty for other layers."""
    if node.type == "Eltwise":
        signs = {coefficient > 0 for coefficient in node.message.eltwise_param.coeff}
        return node.bottoms if len(node.bottoms) == 2 and len(signs) == 2 else ()
    count = _FEATURES.get(node.type, 0)
    return node.bottoms[:count] if len(node.bottoms) >= count else ()
