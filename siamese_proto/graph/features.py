"""The blobs of a net that are worth computing once it is trained: features of towers and predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set

from siamese_proto.errors import quoted
from siamese_proto.graph.ir import Blob, Graph, Node
from siamese_proto.graph.towers import Towers, compared_features, find_towers
from siamese_proto.graph.traversal import Ancestry


def twin_features(graph: Graph) -> Sequence[Sequence[Blob]]:
    """For each tower the blobs that it hands on, in one order; empty where the net has no towers.

    Of several groups of towers the last: those before it lead to it.
    """
    groups = find_towers(graph)
    shared = [towers for towers in groups if towers.shares_any] or groups
    if not shared:
        return ()
    place = {node.id: index for index, node in enumerate(graph.nodes)}
    last = max(shared, key=lambda towers: max(place[node.id] for node in towers.tower(0)))
    return _handed_on(graph, last)


def _handed_on(graph: Graph, towers: Towers) -> Sequence[Sequence[Blob]]:
    inside = {node.id for row in towers.rows for node in row}
    readers = [node for node in graph.nodes if node.type != "Silence"]
    read = {blob.id for node in readers for blob in node.bottoms}
    outside = {blob.id for node in readers if node.id not in inside for blob in node.bottoms}
    found: list[list[Blob]] = [[] for _ in range(towers.count)]
    for row in towers.rows:
        for tops in zip(*(node.tops for node in row), strict=False):
            if any(top.id in outside or top.id not in read for top in tops):
                for blobs, top in zip(found, tops, strict=True):
                    blobs.append(top)
    return found


def predictions(graph: Graph, ancestry: Ancestry) -> list[tuple[Blob, Node | None]]:
    """What losses compare with labels, each with its loss, and what nobody reads: only what parameters have part in."""
    found: dict[str, tuple[Blob, Node | None]] = {}
    for node in graph.nodes:
        if not _judges(node):
            continue
        labels = node.layer.labels if node.layer is not None else ()
        for index, blob in enumerate(node.bottoms):
            if index not in labels and blob.id in ancestry.learned:
                known = found.get(blob.id, (blob, None))[1]
                found[blob.id] = (blob, known or (node if node.layer is not None and node.layer.is_loss else None))
    judgements: set[str] = set()  # ids of blobs that measure what the net computes, or are computed from such
    for node in graph.nodes:
        if _judges(node) or any(blob.id in judgements for blob in node.bottoms):
            judgements.update(top.id for top in node.tops)
    for blob in graph.outputs:
        if blob.id not in judgements and blob.id in ancestry.learned:
            found.setdefault(blob.id, (blob, None))
    return list(found.values())


def _judges(node: Node) -> bool:
    """Whether a layer measures what the net computes, and adds nothing to it."""
    if node.layer is None:
        return any(node.loss_weights)
    return node.layer.is_loss or node.type == "Accuracy" or any(node.loss_weights)


def whole_towers(graph: Graph, ancestry: Ancestry, features: Sequence[Sequence[Blob]]) -> Sequence[Set[str]]:
    """For each tower the ids of its layers: up to its features, and after these up to where towers are compared."""
    found = [set(ancestry.before(*blobs)) for blobs in features]
    towers = {blob.id: {tower} for tower, blobs in enumerate(features) for blob in blobs}  # that blobs depend on
    for node in graph.nodes:
        passed = set[int]().union(*(towers.get(blob.id, ()) for blob in node.bottoms))
        for top in node.tops:
            towers.setdefault(top.id, passed)
        for blob in compared_features(node) if len(passed) > 1 else ():
            own = towers.get(blob.id, set())
            for tower in own if len(own) == 1 else ():
                if ancestry.producer[blob.id].id not in found[tower]:
                    found[tower] |= ancestry.before(blob)
    return found


def tower_difference(graph: Graph, towers: Sequence[Set[str]]) -> str:
    """How towers differ, in one line; empty where all compute the same. `towers` holds the ids of each one's layers."""
    order = {node.id: index for index, node in enumerate(graph.nodes)}
    users = Counter(id for tower in towers for id in tower)
    in_order = (sorted((id for id in tower if users[id] < len(towers)), key=order.__getitem__) for tower in towers)
    first, *others = ([node for node in (graph.nodes[order[id]] for id in ids) if node.bottoms] for ids in in_order)
    for number, other in enumerate(others, 2):
        mine, its = (_without(side, by) for side, by in ((first, other), (other, first)))
        if not mine and not its:
            continue
        count = max(len(mine), len(its))
        more = f" ({count - 1} more {'layers differ' if count > 2 else 'layer differs'})" if count > 1 else ""
        twin = next((node for node in its if mine and _settings(node) == _settings(mine[0])), None)
        if twin is not None:
            return f"layers {quoted(mine[0].name)} and {quoted(twin.name)} do not share their parameters{more}"
        lone, place = (mine[0], number) if mine else (its[0], 1)
        words = f"{lone.type} {lone.layer.describe()}" if lone.layer is not None else lone.type
        return f"tower {place} has no counterpart of layer {quoted(lone.name)} ({words.strip()}){more}"
    return ""


def _settings(node: Node) -> tuple[str, str]:
    return node.type, node.layer.describe() if node.layer is not None else ""


def _without(nodes: Sequence[Node], others: Sequence[Node]) -> list[Node]:
    """The layers that none of the others equals in settings and parameters."""

    def key(node: Node) -> tuple[object, ...]:
        return (*_settings(node), tuple(use.param.id for use in node.params))

    known = Counter(map(key, others))
    known.subtract(map(key, nodes))
    left: list[Node] = []
    for node in reversed(nodes):
        if known[key(node)] < 0:
            known[key(node)] += 1
            left.append(node)
    return left[::-1]
