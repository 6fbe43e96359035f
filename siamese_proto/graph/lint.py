"""What is wrong with a graph, and what is hardly meant: the invariants, and the near-misses of sharing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from siamese_proto.errors import Location, did_you_mean, quoted
from siamese_proto.graph.ir import Finding, Graph, Node, ParamUse


def lint(graph: Graph) -> list[Finding]:
    """Every finding, in the order of the layers. A graph that `build` made breaks no invariant."""
    found = [*_invariants(graph), *_names_used_once(graph), *_partly_shared(graph)]
    return sorted(found, key=lambda finding: (finding.location.line, finding.location.column))


def _invariants(graph: Graph) -> Iterator[Finding]:
    """Every blob is made once and before it is read; every parameter has one owner, which is among its users."""
    made: set[str] = set()
    owners: Counter[str] = Counter()
    for node in graph.nodes:
        for bottom in node.bottoms:
            if bottom.id not in made:
                yield Finding(node.location, "error", "invariant", f"{node.id} reads {bottom.id} before it is made")
        for top in node.tops:
            if top.id in made:
                yield Finding(node.location, "error", "invariant", f"{node.id} makes {top.id} a second time")
            made.add(top.id)
        owners.update(use.param.id for use in node.params if use.is_owner)
    for param in graph.params:
        if owners[param.id] != 1:
            location = next((node.location for node in graph.nodes if node.id == param.owner), Location(graph.file, 1))
            yield Finding(location, "error", "invariant", f"{param.id} has {owners[param.id]} owners")


def _users(graph: Graph) -> dict[str, list[tuple[Node, ParamUse]]]:
    users: dict[str, list[tuple[Node, ParamUse]]] = defaultdict(list)
    for node in graph.nodes:
        for use in node.params:
            users[use.param.id].append((node, use))
    return users


def _names_used_once(graph: Graph) -> Iterator[Finding]:
    """A name is given to share; where others are shared, one that only one layer uses is likely misspelt."""
    users = _users(graph)
    shared = [param.name for param in graph.params if len(users[param.id]) > 1]
    for param in graph.params:
        if shared and param.name and len(users[param.id]) == 1:
            node = users[param.id][0][0]
            text = f"param name {quoted(param.name)} is used by this layer only, so its {param.role} is not shared"
            yield Finding(
                node.location,
                "warning",
                "shared-once",
                f"layer {quoted(node.name)}: {text}{did_you_mean(param.name, shared)}",
            )


def _partly_shared(graph: Graph) -> Iterator[Finding]:
    """Layers that share some of their blobs but not all of them."""
    users = _users(graph)
    for node in graph.nodes:
        shared_with = {user.id: user for use in node.params for user, _ in users[use.param.id] if user.id != node.id}
        for twin in shared_with.values():
            if twin.type != node.type or not _stands_before(twin, node, graph):
                continue
            own = [
                mine.role + _told_apart(mine, its)
                for mine, its in zip(node.params, twin.params, strict=False)  # their numbers of blobs may differ
                if mine.param.id != its.param.id
            ]
            if own:
                text = f"shares parameters with layer {quoted(twin.name)}, but not its {' and '.join(own)}"
                yield Finding(node.location, "warning", "partly-shared", f"layer {quoted(node.name)}: {text}")


def _told_apart(mine: ParamUse, its: ParamUse) -> str:
    if mine.param.name and its.param.name:
        return f" ({quoted(mine.param.name)} here, {quoted(its.param.name)} there)"
    return ""


def _stands_before(first: Node, second: Node, graph: Graph) -> bool:
    return graph.nodes.index(first) < graph.nodes.index(second)
