"""Layers at fault: what is missing of them must not cause further findings."""

from __future__ import annotations

from collections.abc import Set

from siamese_proto.errors import did_you_mean
from siamese_proto.graph.ir import Graph, Node


def has_gap(node: Node) -> bool:
    """Whether the graph wires a layer at fault differently from its file: a bottom is unknown, or a top is taken."""
    if node.layer is not None:
        return False
    read = node.message.bottom
    return len(node.bottoms) < len(read) or any(top.version and top.name not in read for top in node.tops)


def of_unknown_sharing(graph: Graph) -> Set[str]:
    """Ids of the layers whose parameter names are not known for certain.

    Their type is unknown, they are at fault, or one of their `param` entries holds a misspelt field.
    """
    misread = {problem.layer for problem in graph.problems if problem.field and _is_about_params(problem.field)}
    return {node.id for node in graph.nodes if node.layer is None or node.name in misread}


def _is_about_params(field: str) -> bool:
    head = field.partition(".")[0].partition("[")[0]
    return head == "param" or ("." not in field and bool(did_you_mean(head, ["param"])))
