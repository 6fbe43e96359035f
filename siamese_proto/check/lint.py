"""Check the invariants of a graph, and look for likely mistakes in twins."""

from collections import Counter
from collections.abc import Iterator

from siamese_proto.check.findings import FindField
from siamese_proto.check.pair_bottoms import wrong_pairs
from siamese_proto.check.sharing import wrong_sharing
from siamese_proto.check.tower_inputs import wrong_inputs
from siamese_proto.errors import Location
from siamese_proto.graph.ir import Finding, Graph
from siamese_proto.graph.towers import find_towers


def lint(graph: Graph, find_field: FindField = lambda node, path: node.location) -> list[Finding]:
    """Return every finding about a graph, in the order of the text.

    A graph that `build` returns satisfies all invariants.
    """
    towers = find_towers(graph)
    warnings = (*wrong_sharing(graph, towers), *wrong_inputs(graph, towers), *wrong_pairs(graph, towers))
    findings = [*_broken_invariants(graph), *(warning.finding(find_field) for warning in warnings)]
    return sorted(findings, key=lambda finding: (finding.location.line, finding.location.column))


def _broken_invariants(graph: Graph) -> Iterator[Finding]:
    """Every blob is computed once and before it is read; every parameter has one owner, which is among its users."""
    computed: set[str] = set()
    owners: Counter[str] = Counter()
    for node in graph.nodes:
        for bottom in node.bottoms:
            if bottom.id not in computed:
                text = f"{node.id} reads {bottom.id} before it is computed"
                yield Finding(node.location, "error", "invariant", text)
        for top in node.tops:
            if top.id in computed:
                yield Finding(node.location, "error", "invariant", f"{node.id} computes {top.id} a second time")
            computed.add(top.id)
        owners.update(use.param.id for use in node.params if use.is_owner)
    for param in graph.params:
        if owners[param.id] != 1:
            location = next((node.location for node in graph.nodes if node.id == param.owner), Location(graph.file, 1))
            yield Finding(location, "error", "invariant", f"{param.id} has {owners[param.id]} owners")
