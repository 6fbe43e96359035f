"""What is wrong with a graph, and what is hardly meant: the invariants, and the near-misses of twins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from siamese_proto.check.near_misses import near_misses
from siamese_proto.check.pair_bottoms import wrong_pairs
from siamese_proto.check.place import Place, of_the_layer
from siamese_proto.check.tower_inputs import wrong_reads
from siamese_proto.errors import Location
from siamese_proto.graph.ir import Finding, Graph
from siamese_proto.graph.towers import find_towers


def lint(graph: Graph, place: Place = of_the_layer) -> list[Finding]:
    """Every finding, in the order of the text. A graph that `build` made breaks no invariant.

    `place` tells where a field of a layer stands, for findings that are about one.
    """
    towers = find_towers(graph)
    found = [
        *_invariants(graph),
        *near_misses(graph, towers, place),
        *wrong_reads(graph, towers, place),
        *wrong_pairs(graph, towers, place),
    ]
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
