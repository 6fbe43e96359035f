"""Where Caffe computes gradients (net.cpp: Init). Values and gradients of a net do not depend on it."""

from collections.abc import Mapping
from dataclasses import dataclass

from siamese_proto.graph.ir import Graph


@dataclass(frozen=True)
class GradientFlow:
    """Where gradients are computed.

    Attributes:
        nodes: Ids of the nodes that run backward.
        blobs: Ids of the blobs that have a gradient.
        bottoms: For each node id, whether the gradient of each bottom is computed.
    """

    nodes: frozenset[str]
    blobs: frozenset[str]
    bottoms: Mapping[str, tuple[bool, ...]]


def gradient_flow(graph: Graph) -> GradientFlow:
    """Follow gradients as Caffe does: forward from what learns, then backward from the losses.

    With `force_backward`, every bottom that is not a label has a gradient.
    """
    if graph.force_backward:
        backward = {node.id for node in graph.nodes}
        flags = {node.id: [index not in node.labels for index in range(len(node.bottoms))] for node in graph.nodes}
    else:
        backward, flags = _depends_on_learning(graph)
        _drop_what_no_loss_needs(graph, backward, flags)
    blobs = {blob.id for node in graph.nodes for blob, flag in zip(node.bottoms, flags[node.id], strict=True) if flag}
    bottoms = {node: tuple(of_node) for node, of_node in flags.items()}
    return GradientFlow(frozenset(backward), frozenset(blobs), bottoms)


def _depends_on_learning(graph: Graph) -> tuple[set[str], dict[str, list[bool]]]:
    """Return the ids of nodes that depend on something that learns, and for each node which of its bottoms do."""
    learning: set[str] = set()  # ids of blobs
    flags: dict[str, list[bool]] = {}
    backward: set[str] = set()
    for node in graph.nodes:
        of_node = [blob.id in learning for blob in node.bottoms]
        for index, forced in enumerate(node.message.propagate_down[: len(of_node)]):
            of_node[index] = forced
        flags[node.id] = of_node
        if any(of_node) or any(use.lr_mult != 0 and not use.param.statistic for use in node.params):
            backward.add(node.id)
            learning.update(top.id for top in node.tops)
    return backward, flags


def _drop_what_no_loss_needs(graph: Graph, backward: set[str], flags: dict[str, list[bool]]) -> None:
    """Drop nodes that no loss depends on, and nodes whose tops have readers that all need no gradient."""
    under_loss: set[str] = set()
    read: set[str] = set()
    needed: set[str] = set()
    for node in reversed(graph.nodes):
        weighted = [weight != 0 for weight in node.loss_weights]
        contributes = any(weighted) or any(top.id in under_loss for top in node.tops)
        # A loss weight counts as one more reader that needs the gradient.
        dead_end = all(
            top.id in read and top.id not in needed and not has_weight
            for top, has_weight in zip(node.tops, weighted, strict=True)
        )
        if dead_end or not contributes:
            backward.discard(node.id)
            flags[node.id] = [False] * len(node.bottoms)
        for blob, flag in zip(node.bottoms, flags[node.id], strict=True):
            read.add(blob.id)
            if contributes:
                under_loss.add(blob.id)
            if flag:
                needed.add(blob.id)
