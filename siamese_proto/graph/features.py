"""The blobs of a net that are worth computing once it is trained: features of towers and predictions."""

from collections import Counter
from collections.abc import Sequence, Set

from siamese_proto.errors import quoted
from siamese_proto.graph.ir import Blob, Graph, Node
from siamese_proto.graph.towers import compared_features, find_towers
from siamese_proto.graph.traversal import Ancestry


def twin_features(graph: Graph) -> Sequence[Sequence[Blob]]:
    """Return the features of each tower: its blobs that are read outside, or by no layer; empty without towers.

    Of several groups of towers, the last is used: the others lead to it.
    """
    groups = find_towers(graph)
    shared = [group for group in groups if group.shares_any] or groups
    if not shared:
        return ()
    towers = max(shared, key=lambda group: max(graph.order[node.id] for node in group.tower(0)))
    inside = {node.id for row in towers.rows for node in row}
    readers = [node for node in graph.nodes if node.type != "Silence"]
    read = {blob.id for node in readers for blob in node.bottoms}
    outside = {blob.id for node in readers if node.id not in inside for blob in node.bottoms}
    features: list[list[Blob]] = [[] for _ in range(towers.count)]
    for row in towers.rows:
        for tops in zip(*(node.tops for node in row), strict=False):
            if any(top.id in outside or top.id not in read for top in tops):
                for blobs, top in zip(features, tops, strict=True):
                    blobs.append(top)
    return features


def predictions(graph: Graph, ancestry: Ancestry) -> list[tuple[Blob, Node | None]]:
    """Return the blobs that losses compare with labels, with the loss, and learned blobs that no layer reads."""
    blobs: dict[str, tuple[Blob, Node | None]] = {}
    for node in graph.nodes:
        if not _measures(node):
            continue
        for index, blob in enumerate(node.bottoms):
            if index not in node.labels and blob.id in ancestry.learned:
                earlier = blobs.get(blob.id, (blob, None))[1]
                blobs[blob.id] = (blob, earlier or (node if node.is_loss else None))
    measures: set[str] = set()  # ids of blobs that measure predictions, or are computed from such blobs
    for node in graph.nodes:
        if _measures(node) or any(blob.id in measures for blob in node.bottoms):
            measures.update(top.id for top in node.tops)
    for blob in graph.outputs:
        if blob.id not in measures and blob.id in ancestry.learned:
            blobs.setdefault(blob.id, (blob, None))
    return list(blobs.values())


def _measures(node: Node) -> bool:
    """Return whether a layer measures predictions: a loss, or Accuracy."""
    is_accuracy = node.type == "Accuracy" and node.layer is not None
    return node.is_loss or is_accuracy or any(node.loss_weights)


def whole_towers(graph: Graph, ancestry: Ancestry, features: Sequence[Sequence[Blob]]) -> Sequence[Set[str]]:
    """Return for each tower the ids of its layers, up to the layer that compares towers."""
    layers = [set(ancestry.before(*blobs)) for blobs in features]
    # The towers that each blob depends on.
    towers = {blob.id: {tower} for tower, blobs in enumerate(features) for blob in blobs}
    for node in graph.nodes:
        passed = set[int]().union(*(towers.get(blob.id, ()) for blob in node.bottoms))
        for top in node.tops:
            towers.setdefault(top.id, passed)
        for blob in compared_features(node) if len(passed) > 1 else ():
            own = towers.get(blob.id, set())
            for tower in own if len(own) == 1 else ():
                if ancestry.producer[blob.id].id not in layers[tower]:
                    layers[tower] |= ancestry.before(blob)
    return layers


def tower_difference(graph: Graph, towers: Sequence[Set[str]]) -> str:
    """Describe how towers differ, in one line; empty if all compute the same.

    Args:
        towers: For each tower the ids of its layers.
    """
    order = graph.order
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
    """Return the nodes without an equal one, in settings and parameters, among the others."""

    def key(node: Node) -> tuple[object, ...]:
        return (*_settings(node), tuple(use.param.id for use in node.params))

    balance = Counter(map(key, others))
    balance.subtract(map(key, nodes))
    unmatched: list[Node] = []
    for node in reversed(nodes):
        if balance[key(node)] < 0:
            balance[key(node)] += 1
            unmatched.append(node)
    return unmatched[::-1]
